//! NodePublishVolume of a volume that isn't mounted.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use sotto_handoff::message::Code as AgentCode;
use sotto_handoff::refusal::Refusal;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::{Machine, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn publish_twice_mounts_once() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    for _ in 0..2 {
        machine.publish("csi-1", "uid-1", "token").await.unwrap();
    }
    assert_eq!(machine.mounts().len(), 1);
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    assert_eq!(machine.journal(), ["csi-1.json"]);
    let volume = || "csi-1".to_owned();
    let tokens = || "token".to_owned();
    assert_eq!(
        agent.asked(),
        [
            Asked::Prepare { volume: volume(), tokens: tokens(), group: Some(2_000) },
            Asked::Serve { volume: volume(), resend: false },
            Asked::Token { volume: volume(), tokens: tokens() },
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_publishes_at_once_mount_once() {
    let machine = Arc::new(Machine::started().await);
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let machine = Arc::clone(&machine);
            tokio::spawn(async move { machine.publish("csi-1", "uid-1", "token").await })
        })
        .collect();
    let mut ok = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => ok += 1,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    assert!(ok >= 1);
    assert_eq!((machine.mounts().len(), agent.prepares()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_is_read_only_nosuid_nodev_noexec() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let target = machine.target("uid-1").display().to_string();
    let line = table.lines().find(|line| line.contains(&target)).unwrap();
    let options = line.split(' ').nth(5).unwrap();
    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{line}");
    let file = machine.target("uid-1").join("new");
    let written = tokio::task::spawn_blocking(move || std::fs::write(file, "x")).await.unwrap();
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_refusal_is_the_pods_event_and_leaves_nothing() {
    let machine = Machine::started().await;
    let reason = "no such secret at secret/data/payments/db (store main)";
    let behaviour = Behaviour {
        refuse_prepare: Some(Refusal::new(AgentCode::NotFound, reason)),
        ..Behaviour::default()
    };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    let status = machine.publish("csi-1", "uid-1", "token").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, reason));
    assert_nothing_left(&machine);
    assert!(!agent.asked().iter().any(|asked| matches!(asked, Asked::Serve { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_serve_leaves_nothing() {
    let machine = Machine::started().await;
    let behaviour = Behaviour {
        refuse_serve: Some(Refusal::new(AgentCode::ResourceExhausted, "no more threads")),
        ..Behaviour::default()
    };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    let status = machine.publish("csi-1", "uid-1", "token").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_nothing_left(&machine);
    let release = Asked::Release { volume: "csi-1".to_owned() };
    assert_eq!(agent.asked().last(), Some(&release), "the secrets are given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_while_it_fetches_leaves_nothing() {
    let machine = Arc::new(Machine::started().await);
    let gate = Some(Arc::new(Semaphore::new(0)));
    let behaviour = Behaviour { gate, ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    let publishing = Arc::clone(&machine);
    let publishing =
        tokio::spawn(async move { publishing.publish("csi-1", "uid-1", "token").await });
    agent.wait_for(|asked| matches!(asked, Asked::Prepare { .. })).await;
    agent.die().await;
    let status = publishing.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_nothing_left(&machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_kubelet_is_told_what_is_missing() {
    let machine = Machine::started().await;
    let status = machine.publish("csi-1", "uid-1", "token").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("sotto-node isn't connected"), "{status}");
    assert_nothing_left(&machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_stop_a_publish_half_way() {
    let machine = Arc::new(Machine::started().await);
    let gate = Arc::new(Semaphore::new(0));
    let behaviour = Behaviour { gate: Some(Arc::clone(&gate)), ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    let calling = Arc::clone(&machine);
    let call = tokio::spawn(async move { calling.publish("csi-1", "uid-1", "token").await });
    agent.wait_for(|asked| matches!(asked, Asked::Prepare { .. })).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    eventually("it is mounted all the same", || machine.mounts().len() == 1).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!((machine.mounts().len(), agent.prepares()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_planted_in_the_path_is_refused_and_not_followed() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    let request = machine.request("csi-1", "uid-1", "token");
    let volume = machine.target("uid-1").parent().unwrap().to_owned();
    let elsewhere = machine.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::remove_dir(&volume).unwrap();
    symlink(&elsewhere, &volume).unwrap();
    let status = machine.send(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(machine.mounts().is_empty() && agent.asked().is_empty());
    assert!(machine.unpublish("csi-1", "uid-1").await.is_err());
    assert!(volume.is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_targets_place_is_refused_and_not_followed() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    let request = machine.request("csi-1", "uid-1", "token");
    let elsewhere = machine.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, machine.target("uid-1")).unwrap();
    assert!(machine.send(request).await.is_err());
    assert!(machine.mounts().is_empty());
    assert!(elsewhere.is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_left_behind_is_used() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    std::fs::create_dir_all(machine.target("uid-1")).unwrap();
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(machine.mounts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_limit_is_said_and_kept() {
    let machine = Machine::started_with(|settings| settings.max_volumes = 1).await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let status = machine.publish("csi-2", "uid-2", "token").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(machine.mounts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_volume_cannot_be_at_two_targets() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let status = machine.publish("csi-1", "uid-2", "token").await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    machine.unpublish("csi-1", "uid-2").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

fn assert_nothing_left(machine: &Machine) {
    assert_eq!(machine.mounts(), []);
    assert_eq!(machine.journal(), [""; 0]);
    assert!(!machine.target("uid-1").exists());
}
