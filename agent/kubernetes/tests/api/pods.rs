//! What is asked about a pod, and what is believed of the answer.

use std::time::Duration;

use serde_json::{Value, json};
use sotto_core::identity::PodUid;
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::api_error::ApiError;
use sotto_kubernetes::pods::Pods;

use crate::kit::{LONG, cluster, web};

fn pod(spec: &Value) -> Value {
    let web = web();
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {
            "name": web.pod_name.as_str(), "namespace": web.namespace.as_str(),
            "uid": web.pod_uid.as_str(),
        },
    })
}

#[tokio::test]
async fn only_host_users_false_is_a_user_namespace_of_its_own() {
    let server = FakeApiServer::start().await.unwrap();
    let pods = Pods::new(&cluster(&server).await, LONG);
    for (spec, own) in [
        (json!({"hostUsers": false, "containers": []}), true),
        (json!({"hostUsers": true}), false),
        (json!({"containers": []}), false),
    ] {
        server.put("pods", pod(&spec));
        assert_eq!(pods.has_own_users(&web()).await, Ok(own), "{spec}");
    }
}

#[tokio::test]
async fn another_pod_of_that_name_is_not_the_volumes() {
    let server = FakeApiServer::start().await.unwrap();
    let pods = Pods::new(&cluster(&server).await, LONG);
    server.put("pods", pod(&json!({"hostUsers": false})));
    let mut other = web();
    other.pod_uid = PodUid::parse("another-uid").unwrap();
    assert!(matches!(pods.has_own_users(&other).await, Err(ApiError::NotFound { .. })));
}

#[tokio::test]
async fn no_answer_in_time_is_an_error_not_a_wait() {
    let server = FakeApiServer::start().await.unwrap();
    let pods = Pods::new(&cluster(&server).await, Duration::from_millis(200));
    server.put("pods", pod(&json!({})));
    server.fail("get", "pods", Fault::Hang, 1);
    assert!(matches!(pods.has_own_users(&web()).await, Err(ApiError::Deadline(_))));
    server.fail("get", "pods", Fault::Status(500), 1);
    assert!(pods.has_own_users(&web()).await.is_err_and(|error| error.is_outage()));
}

#[tokio::test]
async fn a_pod_without_our_sidecar_is_told_from_one_with_it() {
    let server = FakeApiServer::start().await.unwrap();
    let pods = Pods::new(&cluster(&server).await, LONG);
    let sidecar = json!({
        "name": "sotto-agent", "image": "sotto/agent:1", "restartPolicy": "Always",
        "securityContext": {"runAsUser": 65532}, "volumeMounts": [{"name": "sotto-handoff"}],
    });
    let handoff = json!({"name": "sotto-handoff", "csi": {"driver": "sidecar.csi.sotto.dev"}});
    let spec = json!({"hostUsers": false, "initContainers": [sidecar], "volumes": [handoff]});
    server.put("pods", pod(&spec));
    let injection = pods.injection(&web(), &[]).await.unwrap();
    assert_eq!((injection.own_users, injection.faults.len()), (true, 0), "{injection:?}");
    let images = ["sotto/agent:2".to_owned()];
    let faults = pods.injection(&web(), &images).await.unwrap().faults;
    assert!(faults[0].to_string().contains("sidecar.images"), "{faults:?}");
    server.put("pods", pod(&json!({"containers": [{"name": "web"}]})));
    let faults = pods.injection(&web(), &[]).await.unwrap().faults;
    assert!(faults[0].to_string().contains("sotto.dev/inject"), "{faults:?}");
}
