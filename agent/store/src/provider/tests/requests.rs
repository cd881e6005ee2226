//! What a provider is told.

use serde_json::json;
use sotto_core::secret::SecretString;

use super::bench::*;
use crate::error::StoreError;
use crate::plan::Subject;
use crate::session::{PublishSecrets, SecretStore};

#[tokio::test]
async fn a_provider_is_told_what_the_reference_driver_tells_it() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1")]));
    table(&bench.fetch().await);
    let seen = provider.seen().remove(0);
    let mut attributes = seen.attributes.clone();
    attributes.remove("csi.storage.k8s.io/serviceAccount.tokens").unwrap();
    assert_eq!(
        json!(attributes),
        json!({
            "region": "eu-west-1",
            "objects": "- objectName: \"a\"\n",
            "secretProviderClass": "cloud",
            "csi.storage.k8s.io/ephemeral": "true",
            "csi.storage.k8s.io/pod.name": "checkout-0",
            "csi.storage.k8s.io/pod.namespace": "payments",
            "csi.storage.k8s.io/pod.uid": "uid-1",
            "csi.storage.k8s.io/serviceAccount.name": "checkout",
        })
    );
    assert_eq!(
        seen.tokens(),
        json!({ "sts.amazonaws.com": {
            "token": jwt("one").expose(),
            "expirationTimestamp": "2025-11-25T00:00:00Z",
        } })
    );
    assert_eq!((seen.permission.as_str(), seen.secrets), ("420", json!(null)));
    assert!(seen.versions.is_empty());
    assert_eq!(seen.authority, "localhost");
    assert!(seen.patience.unwrap() <= bench.deadline);
}

#[tokio::test]
async fn a_provider_gets_no_path_that_can_be_written() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1")]));
    table(&bench.fetch().await);
    let target = provider.seen().remove(0).target_path;
    assert_eq!(target, "/dev/null/pods/uid-1/volumes/kubernetes.io~csi/sotto/mount");
    assert!(std::fs::create_dir_all(target).is_err());
}

#[tokio::test]
async fn a_fresh_token_and_the_pods_secrets_go_into_the_next_request() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1")]));
    let (session, plan) = bench.session().await;
    table(&session.fetch(&plan).await);
    session.renew_identity(&jwt("two"));
    let password = SecretString::new("p\"w".to_owned());
    session.take_publish_secrets(PublishSecrets::new(vec![("password".to_owned(), password)]));
    table(&session.fetch(&plan).await);
    let seen = provider.seen().remove(1);
    assert_eq!(seen.tokens()["sts.amazonaws.com"]["token"], jwt("two").expose());
    assert_eq!(seen.secrets, json!({ "password": "p\"w" }));
}

#[tokio::test]
async fn a_class_cannot_say_who_its_pod_is() {
    let mut bench = Bench::new();
    for (name, value) in [
        ("csi.storage.k8s.io/pod.namespace", "kube-system"),
        ("csi.storage.k8s.io/serviceAccount.name", "admin"),
        ("csi.storage.k8s.io/serviceAccount.tokens", "{}"),
        ("csi.storage.k8s.io/other", "x"),
        ("secretProviderClass", "other"),
    ] {
        bench.parameters.insert(name.to_owned(), value.to_owned());
    }
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1")]));
    let (session, plan) = bench.session().await;
    assert_eq!(plan.warnings.len(), 5, "{:?}", plan.warnings);
    table(&session.fetch(&plan).await);
    let seen = provider.seen().remove(0);
    assert_eq!(seen.attributes["csi.storage.k8s.io/pod.namespace"], "payments");
    assert_eq!(seen.attributes["csi.storage.k8s.io/serviceAccount.name"], "checkout");
    assert_eq!(seen.attributes["secretProviderClass"], "cloud");
    assert_eq!(seen.tokens()["sts.amazonaws.com"]["token"], jwt("one").expose());
    assert!(!seen.attributes.contains_key("csi.storage.k8s.io/other"));
}

#[tokio::test]
async fn a_session_serves_its_own_pod_only() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1")]));
    let (session, plan) = bench.session().await;
    let mut other = plan.clone();
    other.subject = Subject {
        namespace: plan.subject.namespace.clone(),
        service_account: "other".to_owned().try_into().unwrap(),
    };
    let fetch = session.fetch(&other).await;
    assert_eq!(
        fetch.objects[0].as_ref().err().unwrap().to_string(),
        "the login at store aws is not that of payments/other: log in first"
    );
    let (store, mut plan) = bench.store();
    plan.store = "azure".to_owned().try_into().unwrap();
    let refused = store.login(&plan, &jwt("one")).await.err().unwrap();
    assert!(matches!(refused, StoreError::OtherLogin { .. }));
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn there_is_nothing_to_renew_or_to_revoke() {
    let (session, _plan) = Bench::new().session().await;
    let hour = std::time::Duration::from_secs(3_600);
    assert_eq!(session.token_life().ttl, None);
    assert!(!session.renew_token(hour).await.unwrap().renewable);
    let lease = crate::session::LeaseId::new("x");
    let no_lease = StoreError::NoSuchLease { store: store_name() };
    assert_eq!(session.renew_lease(&lease, hour).await.unwrap_err(), no_lease);
    assert_eq!(session.revoke().await, Ok(()));
}
