//! Refusals that the manifests in `tests/pods` don't show one by one.

use serde_json::json;

use super::*;

fn settings() -> Settings {
    Settings::parse("agent: { image: registry.example/agent:1 }\ntoken: { audience: bao }").unwrap()
}

fn pod() -> Value {
    json!({
        "metadata": {
            "labels": {"sotto.dev/inject": "true"},
            "annotations": {"sotto.dev/secret-provider-class": "db"},
        },
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    })
}

fn injected() -> Value {
    let mut pod = pod();
    let operations = inject(&pod, &settings()).unwrap();
    patch::apply(&mut pod, &operations).unwrap();
    pod
}

fn refusal(pod: &Value) -> String {
    match inject(pod, &settings()) {
        Err(faults) => faults.to_string(),
        Ok(operations) => panic!("it was accepted: {operations:?}"),
    }
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key.replace("~1", "/")] = value,
    }
}

#[test]
fn the_label_decides_and_nothing_else() {
    for (label, asks) in [(json!("false"), false), (json!(null), false)] {
        let mut pod = pod();
        pod["metadata"]["labels"] = json!({});
        if !label.is_null() {
            pod["metadata"]["labels"][LABEL] = label;
        }
        assert_eq!(!inject(&pod, &settings()).unwrap().is_empty(), asks);
    }
    for label in [json!("yes"), json!("True"), json!(true), json!("")] {
        let mut pod = pod();
        pod["metadata"]["labels"][LABEL] = label;
        assert!(refusal(&pod).contains(LABEL));
    }
}

#[test]
fn every_tampering_with_an_injected_pod_is_refused() {
    let pod = injected();
    assert_eq!(inject(&pod, &settings()), Ok(Vec::new()));
    let secrets = json!({"name": "sotto-secrets", "mountPath": "/x", "readOnly": true});
    for (pointer, value) in [
        ("/spec/initContainers/0/image", json!("evil")),
        ("/spec/initContainers/0/command", json!(["sh"])),
        ("/spec/initContainers/0/args/0", json!("--handoff=/tmp")),
        ("/spec/initContainers/0/restartPolicy", json!(null)),
        ("/spec/initContainers/0/securityContext/runAsUser", json!(0)),
        ("/spec/initContainers/0/securityContext/capabilities/add", json!(["SYS_PTRACE"])),
        ("/spec/initContainers/0/securityContext/procMount", json!("Unmasked")),
        ("/spec/initContainers/0/env", json!([{"name": "LD_PRELOAD", "value": "/x"}])),
        ("/spec/initContainers/0/lifecycle", json!({"preStop": {"exec": {"command": ["sh"]}}})),
        ("/spec/initContainers/0/startupProbe", json!(null)),
        ("/spec/initContainers/0/livenessProbe", json!({"exec": {"command": ["true"]}})),
        ("/spec/initContainers/0/volumeMounts/-", secrets.clone()),
        ("/spec/initContainers/0/name", json!("other")),
        ("/spec/initContainers/-", json!({"name": "sotto-agent"})),
        ("/spec/containers/-", json!({"name": "sotto-agent"})),
        ("/spec/volumes/0/csi/volumeAttributes/secretProviderClass", json!("another")),
        ("/spec/volumes/0/csi/readOnly", json!(false)),
        ("/spec/volumes/1/csi/driver", json!("evil.example")),
        ("/spec/volumes/1/name", json!("other")),
        ("/spec/volumes/2/projected/sources/0/serviceAccountToken/audience", json!("api")),
        ("/spec/volumes/-", json!({"name": "sotto-client-certificate", "emptyDir": {}})),
        ("/spec/volumes/-", json!({"name": "mine", "csi": {"driver": DRIVER}})),
        ("/spec/containers/0/volumeMounts/0/readOnly", json!(false)),
        ("/spec/containers/0/volumeMounts/0/subPath", json!("db")),
        ("/spec/containers/0/volumeMounts/0/mountPath", json!("/elsewhere")),
        ("/spec/containers/0/volumeMounts/-", secrets),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "sotto-token", "mountPath": "/token"}),
        ),
        (
            "/spec/containers/0/volumeDevices",
            json!([{"name": "sotto-handoff", "devicePath": "/x"}]),
        ),
        (
            "/spec/ephemeralContainers",
            json!([{"name": "d", "volumeMounts": [{"name": "sotto-handoff", "mountPath": "/x"}]}]),
        ),
        ("/metadata/annotations/sotto.dev~1secret-provider-class", json!("another")),
        ("/metadata/annotations/sotto.dev~1containers", json!("nobody")),
        ("/spec/shareProcessNamespace", json!(true)),
    ] {
        let mut tampered = pod.clone();
        set(&mut tampered, pointer, value);
        assert!(inject(&tampered, &settings()).is_err(), "{pointer} was accepted");
    }
}

#[test]
fn a_name_of_ours_is_refused_in_every_place() {
    for (pointer, value) in [
        ("/spec/volumes", json!([{"name": "sotto-secrets", "emptyDir": {}}])),
        ("/spec/volumes", json!([{"name": "sotto-token", "emptyDir": {}}])),
        ("/spec/initContainers", json!([{"name": "sotto-agent", "image": "mine"}])),
        ("/spec/containers/0/name", json!("sotto-agent")),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "sotto-secrets", "mountPath": "/mnt/secrets", "readOnly": true}]),
        ),
    ] {
        let mut pod = pod();
        set(&mut pod, pointer, value);
        assert!(refusal(&pod).contains("sotto-"), "{pointer}");
    }
}

#[test]
fn what_another_webhook_added_between_two_calls_is_completed() {
    let mut pod = injected();
    set(&mut pod, "/spec/containers/-", json!({"name": "late", "image": "x"}));
    set(&mut pod, "/spec/containers/-", json!({"name": "istio-proxy", "image": "x"}));
    // As kubelet's API server gives it back.
    set(&mut pod, "/spec/initContainers/0/resizePolicy", json!([{"resourceName": "cpu"}]));
    set(&mut pod, "/spec/initContainers/0/resources/limits/cpu", json!("1"));
    set(&mut pod, "/spec/initContainers/0/securityContext/procMount", json!("Default"));
    let operations = inject(&pod, &settings()).unwrap();
    let paths: Vec<_> = operations.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/spec/containers/1/volumeMounts"]);
}

#[test]
fn the_sidecar_comes_after_a_mesh_that_carries_its_traffic() {
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([
        {"name": "istio-init"},
        {"name": "istio-proxy", "restartPolicy": "Always"},
        {"name": "migrate"},
    ]);
    let operations = inject(&pod, &settings()).unwrap();
    assert!(operations.iter().any(|one| one.path == "/spec/initContainers/2"));
    patch::apply(&mut pod, &operations).unwrap();
    assert_eq!(pod["spec"]["initContainers"][2]["name"], SIDECAR);
    assert!(pod["spec"]["initContainers"][3]["volumeMounts"].is_array());
    assert!(pod["spec"]["initContainers"][0].get("volumeMounts").is_none());
    assert_eq!(inject(&pod, &settings()), Ok(Vec::new()));
}

#[test]
fn a_container_that_starts_before_the_sidecar_cannot_be_chosen() {
    let mut pod = pod();
    pod["spec"]["initContainers"] =
        json!([{"name": "early"}, {"name": "istio-proxy", "restartPolicy": "Always"}]);
    pod["metadata"]["annotations"]["sotto.dev/containers"] = json!("app,early");
    assert!(refusal(&pod).contains("\"early\" starts before the sidecar"));
}

#[test]
fn a_mesh_s_container_gets_secrets_only_if_it_is_named() {
    let mut pod = pod();
    set(&mut pod, "/spec/containers/-", json!({"name": "istio-proxy"}));
    let operations = inject(&pod, &settings()).unwrap();
    assert!(!operations.iter().any(|one| one.path.starts_with("/spec/containers/1")));
    pod["metadata"]["annotations"]["sotto.dev/containers"] = json!("istio-proxy");
    let operations = inject(&pod, &settings()).unwrap();
    assert!(operations.iter().any(|one| one.path.starts_with("/spec/containers/1")));
}

#[test]
fn the_client_certificate_is_the_sidecar_s_alone() {
    let settings = Settings::parse(
        "agent:\n  image: x\n  clientCertificate: { secret: { secretName: c, defaultMode: 288 } }\n\
         token: { audience: bao }",
    )
    .unwrap();
    let mut pod = pod();
    let operations = inject(&pod, &settings).unwrap();
    patch::apply(&mut pod, &operations).unwrap();
    assert_eq!(pod["spec"]["volumes"][3]["secret"]["secretName"], "c");
    assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][2]["mountPath"], "/etc/sotto/tls");
    assert_eq!(inject(&pod, &settings), Ok(Vec::new()));
    let mount = json!({"name": "sotto-client-certificate", "mountPath": "/c"});
    set(&mut pod, "/spec/containers/0/volumeMounts/-", mount);
    assert!(inject(&pod, &settings).is_err());
}

#[test]
fn what_is_not_shaped_like_a_pod_is_refused_not_a_panic() {
    for spec in [
        json!(null),
        json!([]),
        json!({"containers": {}}),
        json!({"containers": [1]}),
        json!({"containers": [{"name": 1}]}),
        json!({"containers": [{"name": "a", "volumeMounts": "x"}]}),
        json!({"containers": [], "volumes": 1}),
        json!({"containers": []}),
        json!({}),
    ] {
        let mut pod = pod();
        pod["spec"] = spec.clone();
        assert!(inject(&pod, &settings()).is_err(), "{spec}");
    }
    for odd in [json!(null), json!([]), json!("x"), json!({"metadata": []})] {
        assert_eq!(inject(&odd, &settings()), Ok(Vec::new()));
    }
}
