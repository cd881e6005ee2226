//! What the driver asks, and what of it never goes back.

use std::time::Duration;

use sotto_dev::process::{Line, Stream};
use sotto_dev::store::Operation;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Code, Ping, Return, Token};

use super::scene::{PATIENCE, Scene, VOLUME, said};

#[tokio::test]
async fn a_volume_is_served_with_the_pods_own_token_and_certificate() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    assert!(matches!(sidecar.ask(Body::Ping(Ping {})).await.unwrap().body, Body::Pong(_)));
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    let opened = running.log().until(|lines| {
        let is_it = |line: &Line| {
            line.stream == Stream::Output
                && line.text.contains("\"open\"")
                && line.text.contains("password")
        };
        lines.iter().any(is_it).then_some(())
    });
    assert!(tokio::time::timeout(PATIENCE, opened).await.is_ok(), "the open is not audited");
    // Once more, as after a driver's restart: nothing is fetched for it.
    sidecar.prepare(&scene.prepare()).await.unwrap();
    assert_eq!(scene.store.count(Operation::Login), 1);
    sidecar.release(VOLUME).await;
    assert_eq!(scene.store.count(Operation::Revoke), 1);
    running.end().await.unwrap();
}

#[tokio::test]
async fn the_token_goes_neither_back_to_the_driver_nor_to_the_log() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    let mut message = scene.prepare();
    // What a driver has no business to send is not used.
    message.service_account_tokens = br#"{"bao":{"token":"canary"}}"#.to_vec();
    sidecar.prepare(&message).await.unwrap();
    let _kernel = sidecar.serve(VOLUME).await;
    let wanted = Body::Return(Return { volume_id: VOLUME.to_owned() });
    let answer = sidecar.ask(wanted).await.unwrap();
    assert!(answer.fd.is_some());
    let Body::Returned(returned) = answer.body else { panic!("{:?}", answer.body) };
    assert!(returned.service_account_tokens.is_empty());
    let token = Body::Token(Token { volume_id: VOLUME.to_owned(), ..Token::default() });
    assert_eq!(sidecar.ask(token).await.unwrap_err().0, Code::FailedPrecondition);
    let token = std::fs::read_to_string(scene.path("token")).unwrap();
    let signature = token.trim().rsplit('.').next().unwrap();
    let log = running.log().text();
    assert!(!log.contains(signature) && !log.contains("canary") && !log.contains("p1"));
    running.end().await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_served_is_refused_with_its_reason() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    let mut message = scene.prepare();
    message.assignment = None;
    let (code, reason) = sidecar.prepare(&message).await.unwrap_err();
    assert_eq!(code, Code::InvalidArgument);
    assert!(reason.contains("upgrade sotto-csi"), "{reason}");
    let mut message = scene.prepare();
    message.assignment.as_mut().unwrap().store.as_mut().unwrap().address = "http://x".to_owned();
    let (_, reason) = sidecar.prepare(&message).await.unwrap_err();
    assert!(reason.contains("store main: address: must begin with https"), "{reason}");
    let mut message = scene.prepare();
    let class = message.assignment.as_mut().unwrap().class.as_mut().unwrap();
    class.parameters.insert("vaultSkipTLSVerify".to_owned(), "true".to_owned());
    let (_, reason) = sidecar.prepare(&message).await.unwrap_err();
    assert!(reason.contains("verification can't be turned off"), "{reason}");
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let mut other = scene.prepare();
    other.volume_id = "csi-2".to_owned();
    let (code, reason) = sidecar.prepare(&other).await.unwrap_err();
    assert_eq!(code, Code::ResourceExhausted, "{reason}");
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_class_that_was_edited_is_followed_and_one_that_is_away_changes_nothing() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    said(&running, "sotto-node is away").await;
    assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    let asked = scene.driver.asked.lock().unwrap().first().cloned().unwrap();
    assert_eq!((asked.volume_id.as_str(), asked.pod), (VOLUME, scene.prepare().pod));
    let mut edited = scene.assignment();
    let missing = "- {objectName: x, secretPath: secret/data/payments/checkout/no, secretKey: x}";
    let class = edited.class.as_mut().unwrap();
    class.parameters.insert("objects".to_owned(), missing.to_owned());
    *scene.driver.resolved.lock().unwrap() = Some(edited);
    said(&running, "the SecretProviderClass was edited, and what it says now can't be served")
        .await;
    assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    tokio::time::timeout(Duration::from_secs(10), running.end()).await.unwrap().unwrap();
}
