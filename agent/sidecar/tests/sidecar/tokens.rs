//! Tokens that are missing, too old, replaced, or another pod's.

use std::time::Duration;

use sotto_dev::store::Operation;
use sotto_handoff::message::Code;

use super::scene::{Scene, VOLUME, said};

#[tokio::test]
async fn an_expired_token_is_waited_for_until_it_is_replaced() {
    let scene = Scene::new().await;
    scene.write_token(&scene.expired());
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    let message = scene.prepare();
    let replaced = async {
        said(&running, "waiting for a fresh token").await;
        assert_eq!(scene.store.count(Operation::Login), 0);
        scene.write_token(&scene.token);
    };
    let (prepared, ()) = tokio::join!(sidecar.prepare(&message), replaced);
    prepared.unwrap();
    assert_eq!(scene.store.count(Operation::Login), 1);
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_token_that_stays_expired_or_away_is_told_within_the_deadline() {
    let scene = Scene::new().await;
    scene.write_token(&scene.expired());
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    let mut message = scene.prepare();
    message.deadline_ms = 1_000;
    let (code, reason) = sidecar.prepare(&message).await.unwrap_err();
    assert_eq!(code, Code::Unauthenticated);
    assert!(reason.contains("expired 60 s ago") || reason.contains("expired 61 s"), "{reason}");
    assert!(reason.contains("kubelet wrote no fresh one"), "{reason}");
    std::fs::remove_file(scene.path("token")).unwrap();
    let (code, reason) = sidecar.prepare(&message).await.unwrap_err();
    assert_eq!(code, Code::Unavailable);
    assert!(reason.contains("the pod's token can't be read from"), "{reason}");
    assert_eq!(scene.store.requests().len(), 0);
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_token_of_another_pod_is_refused_at_once_and_never_sent() {
    let scene = Scene::new().await;
    let mut other = scene.token.clone();
    other.pod_uid = "another-uid".to_owned();
    scene.write_token(&other);
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    let begun = std::time::Instant::now();
    let (code, reason) = sidecar.prepare(&scene.prepare()).await.unwrap_err();
    assert_eq!(code, Code::Unauthenticated);
    assert!(reason.contains("belongs to a pod of another uid"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(scene.store.requests().len(), 0);
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_fresh_token_reaches_the_volume() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let _kernel = sidecar.serve(VOLUME).await;
    let verified = || {
        let lines = running.log().text();
        lines.lines().filter(|line| line.contains("\"verify-token\"")).count()
    };
    let seen = async |count: usize| {
        let enough = running.log().until(|_| (verified() >= count).then_some(()));
        assert!(tokio::time::timeout(Duration::from_secs(20), enough).await.is_ok());
    };
    // Of Prepare, and the first look at the file.
    seen(2).await;
    scene.write_token(&scene.token);
    seen(3).await;
    running.end().await.unwrap();
}
