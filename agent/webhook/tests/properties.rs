//! Properties of the injection over made-up pods.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Map, Value, json};
use sotto_webhook::inject::{LABEL, SIDECAR, inject};
use sotto_webhook::patch::{self, Operation};
use sotto_webhook::settings::Settings;

fn settings() -> Settings {
    Settings::parse("agent: { image: registry.example/agent:1 }\ntoken: { audience: bao }").unwrap()
}

fn mounts() -> impl Strategy<Value = Option<Value>> {
    let mount =
        ("[a-c]", prop_oneof!["/[a-c]{1,2}", "/mnt/[a-z]{1,3}", Just("/mnt/secrets".into())])
            .prop_map(|(name, path)| json!({"name": name, "mountPath": path}));
    proptest::option::of(prop_oneof![
        3 => proptest::collection::vec(mount, 0..3).prop_map(Value::Array),
        1 => Just(Value::Null),
    ])
}

fn container() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        8 => "[a-f]{1,2}",
        1 => Just("istio-proxy".to_owned()),
        1 => Just(SIDECAR.to_owned()),
    ];
    (name, mounts(), any::<bool>(), any::<Option<i64>>()).prop_map(|(name, mounts, always, odd)| {
        let mut container = json!({"name": name, "image": "app"});
        if let Some(mounts) = mounts {
            container["volumeMounts"] = mounts;
        }
        if always {
            container["restartPolicy"] = json!("Always");
        }
        if let Some(odd) = odd {
            container["fieldOfTheFuture"] = json!({"n": odd});
        }
        container
    })
}

fn annotation_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "/[a-z]{1,5}(/[a-z]{1,5})?",
        "[0-9]{1,4}(m|Mi|s|Ki)?",
        "\\PC{0,12}",
        "[a-f](,[a-f]){0,2}",
    ]
}

fn annotations() -> impl Strategy<Value = Map<String, Value>> {
    let keys = proptest::sample::select(vec![
        "sotto.dev/secret-provider-class",
        "sotto.dev/mount-path",
        "sotto.dev/containers",
        "sotto.dev/refresh",
        "sotto.dev/max-stale",
        "sotto.dev/agent-cpu",
        "sotto.dev/agent-memory",
        "sotto.dev/image",
        "unrelated",
    ]);
    proptest::collection::vec((keys, annotation_value()), 0..3).prop_map(|pairs| {
        let mut map = Map::new();
        map.insert("sotto.dev/secret-provider-class".to_owned(), json!("db"));
        map.extend(pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
        map
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let list = |most| proptest::option::of(proptest::collection::vec(container(), 0..most));
    let volume = prop_oneof![
        8 => "[a-c]".prop_map(|name| json!({"name": name, "emptyDir": {}})),
        1 => Just(json!({"name": "sotto-handoff", "emptyDir": {}})),
    ];
    let volumes = proptest::option::of(proptest::collection::vec(volume, 0..3));
    (annotations(), list(3), proptest::collection::vec(container(), 1..4), volumes).prop_map(
        |(annotations, init, containers, volumes)| {
            let mut pod = json!({
                "metadata": {"labels": {LABEL: "true"}, "annotations": annotations},
                "spec": {"containers": containers},
            });
            if let Some(init) = init {
                pod["spec"]["initContainers"] = json!(init);
            }
            if let Some(volumes) = volumes {
                pod["spec"]["volumes"] = json!(volumes);
            }
            pod
        },
    )
}

/// Takes what an add-only patch added out again.
fn undo(document: &mut Value, operations: &[Operation]) {
    for operation in operations.iter().rev() {
        let (parent, key) = operation.path.rsplit_once('/').unwrap();
        let removed = match document.pointer_mut(parent).unwrap() {
            Value::Array(list) if key == "-" => list.pop().unwrap(),
            Value::Array(list) => list.remove(key.parse().unwrap()),
            map => map.as_object_mut().unwrap().remove(key).unwrap(),
        };
        assert_eq!(removed, operation.value);
    }
}

/// Absent and null are the same to Kubernetes.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn sidecar(pod: &Value) -> &Value {
    let list = pod["spec"]["initContainers"].as_array().unwrap();
    list.iter().find(|one| one["name"] == SIDECAR).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn injecting_is_idempotent_and_only_adds(pod in pod()) {
        let Ok(operations) = inject(&pod, &settings()) else { return Ok(()) };
        prop_assert!(!operations.is_empty());
        let mut injected = pod.clone();
        patch::apply(&mut injected, &operations).unwrap();
        prop_assert_eq!(inject(&injected, &settings()), Ok(Vec::new()));
        let patch: json_patch::Patch = serde_json::from_value(patch::to_json(&operations)).unwrap();
        let mut by_another = pod.clone();
        json_patch::patch(&mut by_another, &patch).unwrap();
        prop_assert_eq!(&by_another, &injected);
        undo(&mut injected, &operations);
        prop_assert_eq!(without_nulls(&injected), without_nulls(&pod));
    }

    #[test]
    fn no_annotation_decides_what_the_administrator_does(pod in pod()) {
        let Ok(operations) = inject(&pod, &settings()) else { return Ok(()) };
        let plain = json!({
            "metadata": {
                "labels": {LABEL: "true"},
                "annotations": {"sotto.dev/secret-provider-class": "plain"},
            },
            "spec": {"containers": [{"name": "app"}]},
        });
        let mut expected = plain.clone();
        patch::apply(&mut expected, &inject(&plain, &settings()).unwrap()).unwrap();
        let mut injected = pod.clone();
        patch::apply(&mut injected, &operations).unwrap();
        // All but the resources is the same for every pod.
        let (mut found, mut expected_sidecar) = (sidecar(&injected).clone(), sidecar(&expected).clone());
        found["resources"].take();
        expected_sidecar["resources"].take();
        prop_assert_eq!(found, expected_sidecar);
        let volumes = |pod: &Value, name: &str| {
            let list = pod["spec"]["volumes"].as_array().unwrap().clone();
            list.into_iter().filter(|one| one["name"] == name).collect::<Vec<_>>()
        };
        for name in ["sotto-handoff", "sotto-token"] {
            prop_assert_eq!(volumes(&injected, name), volumes(&expected, name));
        }
        prop_assert_eq!(&volumes(&injected, "sotto-secrets")[0]["csi"]["driver"], "sidecar.csi.sotto.dev");
    }
}

#[test]
fn the_made_up_pods_are_often_injected_and_often_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut injected, mut refused) = (0, 0);
    for _ in 0..500 {
        let pod = pod().new_tree(&mut runner).unwrap().current();
        match inject(&pod, &settings()) {
            Ok(_) => injected += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(injected > 50 && refused > 50, "{injected} injected, {refused} refused");
}
