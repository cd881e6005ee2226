//! The driver is killed at each step of an injected pod's start: the next one goes on from there.

use sotto_handoff::message::{State, frame::Body};

use crate::agent::Agent;
use crate::behaviour::Behaviour;
use crate::driver_process::DriverProcess;
use crate::machine::Machine;

const POD: &str = "uid-1";
/// The tests run in no pod's control group.
const DEVELOPMENT: &[&str] = &["--development"];

/// What kubelet and the runtime do, in order.
const STEPS: [&str; 3] = ["secrets", "handoff", "sidecar"];

async fn sidecar(machine: &Machine, instance: &str) -> Agent {
    let handoff = machine.target_of(POD, "handoff");
    Agent::sidecar(&handoff, instance, Behaviour::default()).await.unwrap()
}

async fn probed(machine: &Machine) -> bool {
    let probe = Agent::probe(&machine.target_of(POD, "handoff")).await;
    let answer = probe.ask(Body::State(State {})).await.unwrap();
    probe.disconnect().await;
    match answer {
        Body::StateIs(state) => state.served,
        other => panic!("{other:?}"),
    }
}

async fn read(machine: &Machine) -> std::io::Result<String> {
    let file = machine.target_of(POD, "secrets").join("who");
    let reading = tokio::task::spawn_blocking(move || std::fs::read_to_string(file));
    tokio::time::timeout(crate::machine::PATIENCE, reading).await.expect("nobody serves").unwrap()
}

/// The driver is killed once `killed_after` steps were done; before the next, kubelet repeats what it published.
async fn delivered_though_killed(killed_after: usize) {
    let machine = Machine::new();
    let mut driver = DriverProcess::started_with(&machine, DEVELOPMENT).await;
    let node = Agent::connected(&machine.run_dir(), "node", Behaviour::default()).await;
    let mut connected = None;
    for (done, step) in STEPS.into_iter().enumerate() {
        if done == killed_after {
            driver.kill();
            driver = DriverProcess::started_with(&machine, DEVELOPMENT).await;
            node.connect(&machine.run_dir()).await;
        }
        match step {
            "sidecar" => connected = Some(sidecar(&machine, "sidecar").await),
            volume => machine.inject(&format!("csi-{volume}"), POD, volume).await.unwrap(),
        }
    }
    // As the startup probe: no container that reads starts sooner.
    while !probed(&machine).await {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(read(&machine).await.unwrap(), "sidecar", "killed after {killed_after} steps");
    drop(connected);
    machine.eject("csi-handoff", POD, "handoff").await.unwrap();
    machine.eject("csi-secrets", POD, "secrets").await.unwrap();
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
    drop(driver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_secrets_are_delivered_whenever_the_driver_is_killed_before() {
    for killed_after in 0..STEPS.len() {
        delivered_though_killed(killed_after).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_while_the_driver_is_gone_and_the_next_one_holds_the_volume() {
    let machine = Machine::new();
    let driver = DriverProcess::started_with(&machine, DEVELOPMENT).await;
    let node = Agent::connected(&machine.run_dir(), "node", Behaviour::default()).await;
    machine.inject("csi-secrets", POD, "secrets").await.unwrap();
    machine.inject("csi-handoff", POD, "handoff").await.unwrap();
    let agent = sidecar(&machine, "sidecar").await;
    assert_eq!(read(&machine).await.unwrap(), "sidecar");
    driver.kill();
    assert_eq!(read(&machine).await.unwrap(), "sidecar");
    let driver = DriverProcess::started_with(&machine, DEVELOPMENT).await;
    node.connect(&machine.run_dir()).await;
    let socket = machine.target_of(POD, "handoff").join("handoff.sock");
    agent.connect_at(&socket).await.unwrap();
    let holds = || driver.devices() > 0;
    crate::machine::eventually("the driver has the connection back", holds).await;
    agent.die().await;
    let _next = sidecar(&machine, "next").await;
    assert_eq!(read(&machine).await.unwrap(), "next");
    machine.eject("csi-handoff", POD, "handoff").await.unwrap();
    machine.eject("csi-secrets", POD, "secrets").await.unwrap();
    assert!(machine.mounts().is_empty());
}
