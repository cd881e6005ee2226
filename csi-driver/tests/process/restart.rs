//! The driver is killed and started again: the next call converges to one mount, or none.

use std::path::PathBuf;

use sotto_core::fuse_init::Negotiated;
use sotto_core::identity::VolumeId;
use sotto_csi::journal::{Entry, Journal};

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::driver_process::DriverProcess;
use crate::machine::{Machine, PATIENCE, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_survives_the_driver_and_is_found_again() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    process.kill();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a", "reads go on without a driver");

    let _process = DriverProcess::started(&machine).await;
    agent.connect(&machine.run_dir()).await;
    machine.publish("csi-1", "uid-1", "second").await.unwrap();
    assert_eq!((machine.mounts().len(), agent.prepares()), (1, 1));
    let token = Asked::Token { volume: "csi-1".to_owned(), tokens: "second".to_owned() };
    // The connection may be asked for before it or after it.
    assert!(agent.asked().contains(&token), "{:?}", agent.asked());
    assert!(!machine.condition("csi-1", "uid-1").await.unwrap().abnormal);
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_nobody_answers_for_is_not_touched() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    process.kill();
    // It holds the connection, so that a stat of the mount would wait for ever.
    agent.freeze().await;
    let _process = DriverProcess::started(&machine).await;
    let calls = async {
        machine.publish("csi-1", "uid-1", "second").await.unwrap();
        machine.condition("csi-1", "uid-1").await.unwrap();
        machine.unpublish("csi-1", "uid-1").await.unwrap();
    };
    tokio::time::timeout(PATIENCE, calls).await.expect("the driver touched the mount");
    assert!(machine.mounts().is_empty() && !machine.target("uid-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_whose_holders_are_all_gone_is_mounted_afresh() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    process.kill();
    agent.die().await;
    let lost = machine.who_serves("uid-1").await.unwrap_err();
    assert_eq!(lost.kind(), std::io::ErrorKind::NotConnected);

    let _process = DriverProcess::started(&machine).await;
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    for _ in 0..2 {
        machine.publish("csi-1", "uid-1", "second").await.unwrap();
    }
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
    assert_eq!(next.prepares(), 1);
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_another_process_holds_is_not_taken_for_dead() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    process.kill();
    agent.freeze().await; // it holds the connection and answers nothing
    let _process = DriverProcess::started(&machine).await;
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "second").await.unwrap();
    assert_eq!((machine.mounts().len(), next.prepares()), (1, 0));
    assert!(machine.condition("csi-1", "uid-1").await.unwrap().abnormal);
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_journal_and_mount_leaves_nothing_in_the_way() {
    let machine = Machine::new();
    std::fs::create_dir(machine.run_dir()).unwrap();
    let journal = Journal::open(&machine.run_dir()).unwrap();
    journal.record(&entry()).unwrap();
    std::fs::create_dir_all(machine.target("uid-1")).unwrap();

    let _process = DriverProcess::started(&machine).await;
    assert!(machine.journal().is_empty() && !machine.target("uid-1").exists());
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    for _ in 0..2 {
        machine.publish("csi-1", "uid-1", "token").await.unwrap();
    }
    assert_eq!((machine.mounts().len(), agent.prepares()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_mount_and_reply_gives_one_mount() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    process.kill(); // kubelet never saw the reply
    let _process = DriverProcess::started(&machine).await;
    for _ in 0..3 {
        machine.publish("csi-1", "uid-1", "token").await.unwrap();
    }
    assert_eq!(machine.mounts().len(), 1);
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    assert_eq!(agent.prepares(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_without_a_journal_is_known_by_its_source() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    process.kill();
    std::fs::remove_file(machine.path("run/volumes/csi-1.json")).unwrap();
    let _process = DriverProcess::started(&machine).await;
    agent.connect(&machine.run_dir()).await;
    machine.publish("csi-1", "uid-1", "fresh").await.unwrap();
    assert_eq!((machine.mounts().len(), agent.prepares()), (1, 1));
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty());
    agent.wait_for(|asked| matches!(asked, Asked::Release { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_killed_while_the_agent_fetches_leaves_no_mount() {
    let machine = std::sync::Arc::new(Machine::new());
    let process = DriverProcess::started(&machine).await;
    let gate = Some(std::sync::Arc::new(tokio::sync::Semaphore::new(0)));
    let behaviour = Behaviour { gate, ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    let calling = std::sync::Arc::clone(&machine);
    let call = tokio::spawn(async move { calling.publish("csi-1", "uid-1", "token").await });
    agent.wait_for(|asked| matches!(asked, Asked::Prepare { .. })).await;
    process.kill();
    assert!(call.await.unwrap().is_err());
    let _process = DriverProcess::started(&machine).await;
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!((machine.mounts().len(), next.prepares()), (1, 1));
}

fn entry() -> Entry {
    let init = Negotiated { major: 7, minor: 40, max_readahead: 0, flags: 0, max_write: 4_096 };
    let target = PathBuf::from("pods/uid-1/volumes/kubernetes.io~csi/secrets/mount");
    Entry::new(VolumeId::parse("csi-1").unwrap(), target, spec("uid-1"), init)
}
