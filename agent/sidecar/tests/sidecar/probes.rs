//! `sotto-agent probe`, which kubelet runs.

use sotto_dev::process::{Program, Running};
use sotto_handoff::message::{Role, StateIs};

use super::driver;
use super::scene::{PATIENCE, Scene};

async fn probe(scene: &Scene) -> Running {
    let handoff = format!("--handoff={}", scene.path("").display());
    let program = Program::new("probe", env!("CARGO_BIN_EXE_sotto-agent"));
    Running::start(program.arguments(["probe".to_owned(), handoff])).await.unwrap()
}

async fn answered(scene: &Scene, state: StateIs) -> (Option<i32>, String) {
    *scene.driver.state.lock().unwrap() = state;
    let running = probe(scene).await;
    let _link = driver::accept(&scene.driver, &scene.listener, Role::Probe).await;
    (running.wait(PATIENCE).await.unwrap().code(), running.log().text())
}

#[tokio::test]
async fn it_succeeds_only_while_the_volume_is_served_and_says_why_not() {
    let scene = Scene::new().await;
    let served = StateIs { served: true, reason: String::new() };
    assert_eq!(answered(&scene, served).await, (Some(0), String::new()));
    let reason = "store main is sealed".to_owned();
    let (code, text) = answered(&scene, StateIs { served: false, reason }).await;
    assert_eq!((code, text.contains("not served: store main is sealed")), (Some(1), true));
}

#[tokio::test]
async fn a_driver_that_is_silent_or_away_is_not_waited_for_longer_than_kubelet_does() {
    let scene = Scene::new().await;
    let begun = std::time::Instant::now();
    let running = probe(&scene).await;
    let _silent = scene.listener.accept().await.unwrap();
    assert_eq!(running.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    drop(scene.listener);
    let handoff = format!("--handoff={}", scene.driver.asked.lock().unwrap().len());
    let program = Program::new("probe", env!("CARGO_BIN_EXE_sotto-agent"));
    let running = Running::start(program.arguments(["probe".to_owned(), handoff])).await.unwrap();
    assert_eq!(running.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(running.log().text().contains("can't be connected to"));
}
