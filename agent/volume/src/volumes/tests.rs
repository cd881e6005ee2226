mod continuing;
mod demand;
mod driver;
mod fake_store;
mod fixture;
mod kernel;
mod leases;
mod life;
mod reports;
mod resolve;
mod returns;
mod storm;

use sotto_core::identity::StoreName;
use sotto_handoff::message::Code;
use sotto_handoff::refusal::Refusal;

use super::*;
use crate::token::testing::{claims, token_map};
use fixture::{Fixture, SOON, fixture, fixture_of};
use serde_json::json;
use sotto_core::limits::Limits;
use sotto_handoff::message::Pod;
use sotto_store::{ObjectError, StoreError};
use tokio::sync::Semaphore;

fn no_such_secret(path: &str) -> ObjectError {
    ObjectError::NoSuchSecret { store: main(), path: path.to_owned() }
}

fn main() -> StoreName {
    StoreName::parse("main").unwrap()
}

fn said(refused: Result<impl Sized, Refusal>) -> (Code, String) {
    let Err(refusal) = refused else { panic!("it was not refused") };
    (refusal.code(), refusal.message().to_owned())
}

#[tokio::test]
async fn a_prepared_volume_is_answered_with_its_objects_versions() {
    let fixture = fixture();
    let prepared = fixture.prepare("csi-1").await.unwrap();
    let objects: Vec<_> =
        prepared.objects.iter().map(|one| (one.id.as_str(), one.version.as_str())).collect();
    assert_eq!(objects, [("password", "7@t"), ("username", "7@t")]);
    assert_eq!(fixture.store.counts(), (1, 1, 0));
    assert_eq!(fixture.audited().await, ["verify-token allowed", "fetch allowed"]);
}

#[tokio::test]
async fn fifty_prepares_at_once_and_one_later_fetch_once() {
    let fixture = fixture();
    let all = futures::future::join_all((0..50).map(|_| fixture.prepare("csi-1"))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(fixture.prepare("csi-1").await.is_ok());
    assert_eq!(fixture.store.counts(), (1, 1, 0));
    assert_eq!(fixture.volumes.count(), 1);
}

#[tokio::test]
async fn a_known_volume_of_another_pod_is_refused() {
    let fixture = fixture();
    fixture.prepare("csi-1").await.unwrap();
    let mut other = fixture.message("csi-1");
    other.pod.as_mut().unwrap().uid = "uid-2".to_owned();
    let (code, message) = said(fixture.prepare_with(other).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("another pod"), "{message}");
    let mut other = fixture.message("csi-1");
    other.mount_group = Some(2000);
    assert_eq!(said(fixture.prepare_with(other).await).0, Code::FailedPrecondition);
    assert_eq!(fixture.store.counts(), (1, 1, 0));
}

#[tokio::test]
async fn a_token_that_is_not_believed_sends_nothing_to_the_store() {
    let fixture = fixture();
    for (path, value, code) in [
        ("/aud", json!(["vault"]), Code::Unauthenticated),
        ("/exp", json!(1), Code::Unauthenticated),
        ("/kubernetes.io/pod/uid", json!("uid-2"), Code::PermissionDenied),
        ("/kubernetes.io/node/name", json!("node-2"), Code::PermissionDenied),
    ] {
        let mut claims = claims("bao");
        *claims.pointer_mut(path).unwrap() = value;
        let token = fixture.signer.sign(&fixture.signer.header(), &claims);
        let mut message = fixture.message("csi-1");
        message.service_account_tokens = token_map("bao", &token);
        assert_eq!(said(fixture.prepare_with(message).await).0, code, "{path}");
        assert_eq!(fixture.audited().await, ["verify-token denied"], "{path}");
    }
    assert_eq!(fixture.store.counts(), (0, 0, 0));
    assert_eq!(fixture.volumes.count(), 0);
}

#[tokio::test]
async fn a_token_for_another_audience_is_named_not_sent() {
    let fixture = fixture();
    let mut message = fixture.message("csi-1");
    message.service_account_tokens = token_map("vault", &fixture.signer.mint("vault"));
    let (code, text) = said(fixture.prepare_with(message).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("no token for audience bao, only for vault"), "{text}");
}

#[tokio::test]
async fn one_missing_object_fails_the_volume_and_the_login_is_undone() {
    let fixture = fixture();
    fixture.store.refuse_object("password", no_such_secret("secret/data/payments/db"));
    let (code, message) = said(fixture.prepare("csi-1").await);
    assert_eq!(code, Code::NotFound);
    let wanted = "object 1 (password): no such secret at secret/data/payments/db (store main)";
    assert_eq!(message, wanted);
    fixture.drain.finish(SOON).await.unwrap();
    assert_eq!(fixture.store.counts(), (1, 1, 1));
    assert_eq!((fixture.volumes.count(), fixture.mappings()), (0, 0));
    assert_eq!(
        fixture.audited().await,
        ["verify-token allowed", "fetch denied", "release allowed"]
    );
}

#[tokio::test]
async fn an_optional_volume_goes_without_what_is_missing_but_not_without_what_is_refused() {
    let fixture = fixture();
    fixture.store.refuse_object("password", no_such_secret("secret/data/payments/db"));
    let optional = |volume: &str| Prepare { optional: true, ..fixture.message(volume) };
    let prepared = fixture.prepare_with(optional("csi-1")).await.unwrap();
    assert_eq!(prepared.objects.len(), 1);
    fixture.store.refuse_object("username", no_such_secret("secret/data/payments/db"));
    let prepared = fixture.prepare_with(optional("csi-3")).await.unwrap();
    assert_eq!(prepared.objects.len(), 0);
    let subject = sotto_store::plan::Subject::from(&crate::token::testing::pod());
    let denied = ObjectError::Denied { store: main(), subject, path: "x".to_owned() };
    fixture.store.refuse_object("password", denied);
    assert_eq!(said(fixture.prepare_with(optional("csi-2")).await).0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_store_that_is_down_is_said_once() {
    let fixture = fixture();
    for name in ["username", "password"] {
        fixture.store.refuse_object(name, StoreError::Sealed { store: main() }.into());
    }
    let refused = said(fixture.prepare("csi-1").await);
    assert_eq!(refused, (Code::Unavailable, "store main is sealed; unseal it".to_owned()));
}

#[tokio::test]
async fn a_refused_login_is_told_and_leaves_nothing() {
    let fixture = fixture();
    let error = StoreError::NoSuchRole {
        store: main(),
        role: "payments".to_owned(),
        mount: "jwt".to_owned(),
    };
    *fixture.store.refuse_login.lock().unwrap() = Some(error);
    assert_eq!(said(fixture.prepare("csi-1").await).0, Code::NotFound);
    assert_eq!(fixture.audited().await, ["verify-token allowed", "fetch denied"]);
    *fixture.store.refuse_login.lock().unwrap() = None;
    assert!(fixture.prepare("csi-1").await.is_ok(), "the next attempt begins anew");
}

#[tokio::test]
async fn a_class_that_is_unknown_or_weakens_the_store_is_refused() {
    let fixture = fixture();
    let of = |class: &str| Prepare {
        secret_provider_class: class.to_owned(),
        ..fixture.message("csi-1")
    };
    let (code, message) = said(fixture.prepare_with(of("other")).await);
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("no SecretProviderClass other in namespace payments"), "{message}");
    let (code, message) = said(fixture.prepare_with(of("skip-verify")).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("verification can't be turned off"), "{message}");
    assert_eq!(fixture.store.counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_namespace_that_may_not_use_the_store_is_refused() {
    let fixture = fixture();
    let pod = Pod { namespace: "shop".to_owned(), ..fixture.message("csi-1").pod.unwrap() };
    let message = Prepare { pod: Some(pod), ..fixture.message("csi-1") };
    assert_eq!(said(fixture.prepare_with(message).await).0, Code::PermissionDenied);
    assert_eq!(fixture.audited().await, ["fetch denied"]);
}

#[tokio::test]
async fn volumes_over_the_nodes_limit_are_refused() {
    let fixture = fixture_of(Limits { volumes: 1, ..Limits::default() });
    fixture.prepare("csi-1").await.unwrap();
    assert_eq!(said(fixture.prepare("csi-2").await).0, Code::ResourceExhausted);
    assert!(fixture.prepare("csi-1").await.is_ok());
    fixture.release("csi-1").await.unwrap();
    assert!(fixture.prepare("csi-2").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_ends_by_the_requests_deadline_and_is_logged_out_of() {
    let fixture = fixture();
    *fixture.store.hold_fetch.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let message = Prepare { deadline_ms: 5_000, ..fixture.message("csi-1") };
    let (code, text) = said(fixture.prepare_with(message).await);
    assert_eq!(code, Code::DeadlineExceeded);
    assert_eq!(text, "the secrets were not fetched within 5s");
    fixture.emptied().await;
    fixture.drain.finish(SOON).await.unwrap();
    assert_eq!(fixture.store.counts(), (1, 1, 1));
}

#[tokio::test]
async fn no_refusal_carries_a_token_or_a_value() {
    let fixture = fixture();
    let token = fixture.signer.mint("bao");
    let signature = token.expose().rsplit('.').next().unwrap().to_owned();
    let refusals = [
        said(fixture.prepare_with(spoiled(&fixture, &token, |m| m.volume_id.push('/'))).await),
        said(fixture.prepare_with(spoiled(&fixture, &token, |m| m.pod = None)).await),
        said(fixture.token("csi-9", token_map("bao", &token)).await),
        said(fixture.token("../x", token.expose().as_bytes().to_vec()).await),
    ];
    for (_, message) in refusals {
        assert!(!message.contains(&signature) && !message.contains("canary"), "{message}");
    }
}

fn spoiled(
    fixture: &Fixture,
    token: &sotto_core::secret::SecretString,
    spoil: impl FnOnce(&mut Prepare),
) -> Prepare {
    let mut message = fixture.message("csi-1");
    message.service_account_tokens = token_map("bao", token);
    spoil(&mut message);
    message
}
