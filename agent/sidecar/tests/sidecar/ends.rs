//! The end of a sidecar, and command lines that never begin.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sotto_dev::process::{Program, Running};
use sotto_dev::store::{Fault, Operation};

use super::scene::{PATIENCE, Scene, VOLUME};

const DENIED: i32 = 13;

#[tokio::test]
async fn a_sidecar_that_is_told_to_end_revokes_and_refuses_and_ends_well() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    assert_eq!(scene.store.tokens(), 1);
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let status = running.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((scene.store.count(Operation::Revoke), scene.store.tokens()), (1, 0));
    drop(kernel);
}

#[tokio::test]
async fn a_store_that_is_away_delays_the_end_only_so_long() {
    let scene = Scene::new().await;
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    scene.store.go_dark();
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let refused = async {
        // Wiped and refused at once, whatever the store does.
        while kernel.read().await != Err(DENIED) {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    refused.await;
    let status = running.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_command_line_with_faults_is_told_whole_and_ends_with_64() {
    let arguments = ["--handoff=run", "--client-key=k", "--log=a=b=c", "--development"];
    let program =
        Program::new("sotto-agent", env!("CARGO_BIN_EXE_sotto-agent")).arguments(arguments);
    let running = Running::start(program).await.unwrap();
    assert_eq!(running.wait(PATIENCE).await.unwrap().code(), Some(64));
    let text = running.log().text();
    for words in
        ["--handoff: run", "--client-key: k", "given together", "--token: missing", "--log: "]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// Its login at the new store is there, and the values are not: neither the old nor the new one is left.
#[tokio::test]
async fn a_sidecar_that_is_told_to_end_while_a_new_store_is_slow_revokes_both_logins() {
    let scene = Scene::new().await;
    let other = scene.another_store().await;
    other.fail(Some(Operation::Read), Fault::Hang, None);
    let running = scene.start().await;
    let sidecar = scene.linked().await;
    sidecar.prepare(&scene.prepare()).await.unwrap();
    let kernel = sidecar.serve(VOLUME).await;
    scene.resolve_to(&other);
    let begun = Instant::now();
    while other.count(Operation::Read) == 0 {
        assert!(begun.elapsed() < PATIENCE, "it doesn't go over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((scene.store.tokens(), other.tokens()), (1, 1));
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let status = running.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((scene.store.tokens(), other.tokens()), (0, 0));
    drop(kernel);
}
