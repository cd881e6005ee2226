//! The CSIDriver object of the cluster, and the one in `deploy/base`.

use serde_json::json;
use sotto_core::identity::Audience;
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::driver_check::{Finding, check};

use crate::kit::{LONG, cluster};
use crate::manifests::of_kind;

const DRIVER: &str = "csi.sotto.dev";

fn audience(name: &str) -> Audience {
    Audience::parse(name).unwrap()
}

#[tokio::test]
async fn the_manifest_in_deploy_fits_the_audiences_that_it_requests() {
    let server = FakeApiServer::start().await.unwrap();
    let object = of_kind("base", "CSIDriver")
        .into_iter()
        .find(|one| one["metadata"]["name"] == DRIVER)
        .expect("deploy/base has it");
    let requested: Vec<Audience> = object["spec"]["tokenRequests"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|request| audience(request["audience"].as_str().unwrap()))
        .collect();
    server.put("csidrivers", object);
    let cluster = cluster(&server).await;
    assert_eq!(check(&cluster, DRIVER, &requested, LONG).await, Ok(vec![]));
    let other = check(&cluster, DRIVER, &[audience("another")], LONG).await.unwrap();
    assert!(other.iter().any(|one| matches!(one, Finding::AudienceMissing { .. })), "{other:?}");
    assert!(other[0].is_fatal());
}

#[tokio::test]
async fn a_missing_object_is_a_finding_and_an_absent_server_is_an_error() {
    let server = FakeApiServer::start().await.unwrap();
    let cluster = cluster(&server).await;
    let missing = check(&cluster, DRIVER, &[], LONG).await.unwrap();
    assert_eq!(missing, [Finding::Missing { driver: DRIVER.to_owned() }]);
    assert_eq!(
        missing[0].to_string(),
        "there is no CSIDriver object csi.sotto.dev: apply deploy/base"
    );
    server.fail("get", "csidrivers", Fault::Status(500), 1);
    assert!(check(&cluster, DRIVER, &[], LONG).await.unwrap_err().is_outage());
    server.go_dark().await;
    assert!(check(&cluster, DRIVER, &[], LONG).await.unwrap_err().is_outage());
}

#[tokio::test]
async fn pod_info_and_republish_that_are_off_are_found() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(
        "csidrivers",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": DRIVER},
        "spec": {"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"]}}),
    );
    let found = check(&cluster(&server).await, DRIVER, &[], LONG).await.unwrap();
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("podInfoOnMount: false") && texts[1].contains("requiresRepublish"));
}
