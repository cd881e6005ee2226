//! Workers that end, and what the next one goes on with.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sotto_dev::process::Running;
use sotto_dev::store::Operation;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Code, Return};
use sotto_handoff::refusal::Refusal;

use super::scene::{PATIENCE, Scene, VOLUME, said};

/// The worker of a supervisor.
fn worker_of(supervisor: u32) -> Pid {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let first = children.split_whitespace().next().unwrap().parse().unwrap();
    Pid::from_raw(first).unwrap()
}

async fn served_on(running: &Running, times: usize) {
    let restored = running.log().until(|lines| {
        let restored = lines.iter().filter(|line| line.text.contains("\"restored\":1")).count();
        (restored >= times).then_some(())
    });
    let restored = tokio::time::timeout(Duration::from_secs(20), restored).await;
    assert!(restored.is_ok(), "{}", running.log().tail());
}

#[tokio::test]
async fn a_killed_worker_is_followed_by_one_that_serves_before_it_has_a_link() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    for times in 1..=3 {
        kill_process(worker_of(running.pid()), Signal::KILL).unwrap();
        served_on(&running, times).await;
        // Nobody has accepted its link yet.
        assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    }
    let again = scene.linked().await;
    assert_eq!(again.instance, sidecar.instance, "the same sidecar");
    again.prepare(&scene.prepare()).await.unwrap();
    assert_eq!(scene.store.count(Operation::Login), 1, "nothing was fetched anew");
    running.end().await.unwrap();
    assert_eq!(scene.store.count(Operation::Revoke), 1, "the former worker's login is revoked");
}

#[tokio::test]
async fn other_times_are_followed_by_the_same_worker_and_login_and_left_to_the_next() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    let worker = worker_of(running.pid());
    let mut changed = scene.assignment();
    changed.refresh.as_mut().unwrap().max_stale_ms = 120_000;
    *scene.driver.resolved.lock().unwrap() = Some(changed.clone());
    said(&running, "limits or times have changed").await;
    assert_eq!(worker_of(running.pid()), worker);
    kill_process(worker, Signal::KILL).unwrap();
    served_on(&running, 1).await;
    assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    let again = scene.linked().await;
    let mut message = scene.prepare();
    message.assignment = Some(changed);
    again.prepare(&message).await.unwrap();
    assert_eq!(scene.store.count(Operation::Login), 1);
    // It began with what was left: nothing changes a second time.
    let asked = || scene.driver.asked.lock().unwrap().len();
    let before = asked();
    let begun = Instant::now();
    while asked() < before + 2 {
        assert!(begun.elapsed() < PATIENCE, "it looks at its class no more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let text = running.log().text();
    assert_eq!(text.matches("limits or times have changed").count(), 1, "{text}");
    running.end().await.unwrap();
    assert_eq!(scene.store.tokens(), 0);
}

#[tokio::test]
async fn settings_that_cannot_work_are_not_begun_with() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    let worker = worker_of(running.pid());
    let mut changed = scene.assignment();
    changed.store.as_mut().unwrap().audience = "another".to_owned();
    *scene.driver.resolved.lock().unwrap() = Some(changed);
    said(&running, "the pod has one for").await;
    assert_eq!(worker_of(running.pid()), worker, "it stays with what it has");
    assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    running.end().await.unwrap();
}

#[tokio::test]
async fn what_the_administrator_withdraws_is_given_up_and_revoked() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let _kernel = sidecar.serve(VOLUME).await;
    let refusal = Refusal::new(Code::PermissionDenied, "namespace payments may not use store main");
    *scene.driver.denied.lock().unwrap() = Some(refusal);
    said(&running, "withdraws the pod's secrets").await;
    // Another worker is there, and has nothing.
    let again = scene.linked().await;
    let give_back = Return { volume_id: VOLUME.to_owned() };
    let (code, _) = again.ask(Body::Return(give_back)).await.map(|_| ()).unwrap_err();
    assert_eq!(code, Code::NotFound);
    assert_eq!(scene.store.count(Operation::Revoke), 1);
    running.end().await.unwrap();
}

/// This driver never turns, so that both logins are there until the end.
#[tokio::test]
async fn a_login_is_shown_to_no_store_that_it_was_not_made_at_and_is_left_to_the_next_worker() {
    let scene = Scene::new().await;
    let other = scene.another_store().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    scene.resolve_to(&other);
    said(&running, "a turn is tried again").await;
    for times in 1..=2 {
        kill_process(worker_of(running.pid()), Signal::KILL).unwrap();
        served_on(&running, times).await;
        let _link = scene.linked().await;
        assert_eq!(kernel.read().await, Ok("p1".to_owned()));
    }
    assert_eq!((scene.store.tokens(), other.tokens()), (1, 1));
    running.end().await.unwrap();
    assert_eq!((scene.store.tokens(), other.tokens()), (0, 0), "each is revoked where it was made");
    for store in [&scene.store, &other] {
        assert_eq!(store.count(Operation::Login), 1);
        let requests = store.requests();
        assert!(requests.iter().all(|request| request.status < 400), "{requests:?}");
    }
}

#[tokio::test]
async fn a_prepare_for_another_store_is_followed_too() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    let worker = worker_of(running.pid());
    let mut wrong = scene.prepare();
    let store = wrong.assignment.as_mut().unwrap().store.as_mut().unwrap();
    store.auth_mount = "nothing".to_owned();
    assert!(sidecar.prepare(&wrong).await.is_err());
    sidecar.prepare(&scene.prepare()).await.unwrap();
    assert_eq!(worker_of(running.pid()), worker);
    running.end().await.unwrap();
}
