use std::time::Duration;

use super::*;
use serde_json::{Value, json};
use sotto_core::identity::{ClassName, Namespace, WorkloadIdentity};
use sotto_core::snapshot::ObjectVersion;
use sotto_dev::apiserver::FakeApiServer;
use sotto_kubernetes::driver_check::Finding;
use sotto_volume::classes::ClassError;
use sotto_volume::reporter::Severity;

const SOON: Duration = Duration::from_secs(10);

struct Member {
    server: FakeApiServer,
    membership: Membership,
    drain: Drain,
}

async fn joined(server: FakeApiServer) -> Member {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("config");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let (node, drain) = (NodeName::parse("node-1").unwrap(), Drain::new());
    let source = Source::Kubeconfig(kubeconfig);
    let membership = Membership::join(&source, &node, &drain).await.unwrap();
    Member { server, membership, drain }
}

impl Member {
    async fn class(&self, name: &str) -> Result<String, ClassError> {
        let (namespace, name) =
            (Namespace::parse("shop").unwrap(), ClassName::parse(name).unwrap());
        let classes = self.membership.classes();
        classes.class(&namespace, &name).await.map(|class| class.provider.clone())
    }

    async fn ends(self) {
        self.drain.finish(SOON).await.unwrap();
    }
}

fn class(spec: Value) -> Value {
    json!({"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
        "metadata": {"namespace": "shop", "name": "db"}, "spec": spec})
}

fn pod() -> WorkloadIdentity {
    serde_json::from_value(json!({"namespace": "shop", "pod_name": "web-0", "pod_uid": "uid-0",
        "service_account": "web", "node": "node-1"}))
    .unwrap()
}

#[tokio::test]
async fn a_class_is_found_through_the_watch_and_an_unknown_one_is_not() {
    let server = FakeApiServer::start().await.unwrap();
    server.put("secretproviderclasses", class(json!({"provider": "openbao"})));
    let member = joined(server).await;
    assert_eq!(member.class("db").await, Ok("openbao".to_owned()));
    let error = member.class("other").await.unwrap_err();
    assert!(matches!(error, ClassError::Unknown { .. }), "{error}");
    member.ends().await;
}

#[tokio::test]
async fn a_class_that_cannot_be_used_says_why() {
    let server = FakeApiServer::start().await.unwrap();
    server.put("secretproviderclasses", class(json!({"parameters": {}})));
    let member = joined(server).await;
    let error = member.class("db").await.unwrap_err();
    assert!(matches!(error, ClassError::Unusable { .. }), "{error}");
    member.ends().await;
}

#[tokio::test]
async fn without_an_api_server_no_class_is_called_unknown() {
    let member = joined(FakeApiServer::absent().await.unwrap()).await;
    let error = member.class("db").await.unwrap_err();
    assert!(matches!(error, ClassError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("has not listed them yet"), "{error}");
    member.ends().await;
}

#[tokio::test]
async fn a_report_becomes_an_event_on_the_pod() {
    let member = joined(FakeApiServer::start().await.unwrap()).await;
    let message = "secretObjects is not synced".to_owned();
    let reporter = member.membership.reporter();
    reporter.report(&pod(), Severity::Warning, "SecretObjectsIgnored", message);
    member.server.until("the event", |server| !server.objects("events").is_empty()).await;
    let event = &member.server.objects("events")[0];
    assert_eq!(event["reason"], "SecretObjectsIgnored");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["message"], "secretObjects is not synced");
    assert_eq!(event["involvedObject"]["uid"], "uid-0");
    assert_eq!(event["source"]["component"], "sotto-node");
    member.ends().await;
}

#[tokio::test]
async fn a_volume_that_is_served_has_a_status_and_one_that_comes_again_has_it_anew() {
    let resource = "secretproviderclasspodstatuses";
    let member = joined(FakeApiServer::start().await.unwrap()).await;
    let (reporter, name) = (member.membership.reporter(), ClassName::parse("db").unwrap());
    let objects = [ObjectVersion { id: "password".to_owned(), version: "7".to_owned() }];
    reporter.served(&pod(), &name, "/t", &objects);
    member.server.until("the status", |server| !server.objects(resource).is_empty()).await;
    let status = member.server.objects(resource)[0]["status"].clone();
    assert_eq!(status["podName"], "web-0");
    assert_eq!(status["mounted"], true);
    assert_eq!(status["objects"], json!([{"id": "password", "version": "7"}]));
    let written = member.membership.statuses.clone();
    while written.counts().written == 0 {
        tokio::task::yield_now().await;
    }
    reporter.served(&pod(), &name, "/t", &objects);
    assert_eq!(written.counts().unchanged, 1);
    reporter.released(&pod(), &name);
    reporter.served(&pod(), &name, "/t", &objects);
    let twice = |server: &FakeApiServer| server.requests_of("patch", resource).len() == 2;
    member.server.until("the status again", twice).await;
    member.ends().await;
}

#[tokio::test]
async fn the_csidriver_is_compared_once_the_api_server_is_there() {
    let member = joined(FakeApiServer::absent().await.unwrap()).await;
    let cluster = member.membership.cluster.clone();
    let audiences = vec![Audience::parse("bao").unwrap()];
    let check =
        tokio::spawn(
            async move { driver_check::findings(&cluster, "csi.sotto.dev", &audiences).await },
        );
    member.server.put(
        "csidrivers",
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": "csi.sotto.dev"},
            "spec": {"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true,
                "volumeLifecycleModes": ["Ephemeral"]}}),
    );
    member.server.come_back().await.unwrap();
    let findings = tokio::time::timeout(SOON, check).await.unwrap().unwrap();
    assert!(matches!(findings.as_slice(), [Finding::AudienceMissing { .. }]), "{findings:?}");
    member.ends().await;
}
