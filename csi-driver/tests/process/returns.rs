//! The driver is restarted and has its connections back from the agents.

use std::time::Duration;

use sotto_csi::probe::{ProbeError, probe};

use crate::agent::{Agent, Asked};
use crate::behaviour::{Behaviour, Returning};
use crate::driver_process::{DriverProcess, log};
use crate::machine::{Machine, eventually};
use crate::readers::Racing;

async fn holds(process: &DriverProcess, count: usize) {
    eventually("the driver holds its volumes", || process.devices() == count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn driver_and_then_agent_are_killed_under_readers_and_no_read_fails() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let mut agent = Agent::connected(&machine.run_dir(), "0", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    let path = machine.target("uid-1").join("who");
    let racing = tokio::task::spawn_blocking(|| Racing::on(path, 2)).await.unwrap();
    let mut process = Some(process);
    for round in 1..=3 {
        racing.more(true, 20).await;
        process.take().unwrap().kill();
        racing.more(true, 20).await;
        let next = DriverProcess::started(&machine).await;
        agent.connect(&machine.run_dir()).await;
        holds(&next, 1).await;
        process = Some(next);

        racing.more(true, 20).await;
        agent.die().await;
        let name = round.to_string();
        agent = Agent::connected(&machine.run_dir(), &name, Behaviour::default()).await;
        racing.more(true, 20).await;
        assert_eq!(machine.who_serves("uid-1").await.unwrap(), name);
        // Kubelet has sent no token since the first.
        assert!(agent.asked().contains(&Asked::Prepare {
            volume: "csi-1".to_owned(),
            tokens: "first".to_owned(),
            group: Some(2_000),
        }));
    }
    assert_eq!(racing.errnos().into_keys().collect::<Vec<_>>(), [0], "reads failed");
    racing.stop().await;
    assert_eq!(machine.mounts().len(), 1);
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    holds(&process.unwrap(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_is_ready_once_it_holds_what_its_predecessor_held() {
    let mut machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let endpoint = format!("unix://{}", machine.path("csi/csi.sock").display());
    probe(&endpoint).await.unwrap();
    machine.stop().await;
    machine.start(|settings| settings.return_patience = Duration::from_secs(3_600)).await;
    assert!(matches!(probe(&endpoint).await, Err(ProbeError::NotReady)));
    agent.connect(&machine.run_dir()).await;
    eventually("it is ready", || machine.app().driver().is_ready()).await;
    probe(&endpoint).await.unwrap();
    // The volume has two holders again, so that it may leave at once.
    machine.stop().await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_comes_back_keeps_the_driver_only_for_so_long() {
    let mut machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    machine.stop().await;
    machine.start(|settings| settings.return_patience = Duration::from_secs(1)).await;
    assert!(!machine.app().driver().is_ready());
    eventually("it is ready", || machine.app().driver().is_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_surge_the_connection_comes_from_the_agent_that_serves() {
    let mut machine = Machine::started().await;
    let old = Agent::connected(&machine.run_dir(), "old", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    machine.stop().await;
    machine.start(|_| {}).await;
    let new = Agent::connected(&machine.run_dir(), "new", Behaviour::default()).await;
    let asked = Asked::Return { volume: "csi-1".to_owned() };
    new.wait_for(|it| *it == asked).await;
    old.connect(&machine.run_dir()).await;
    eventually("the driver holds the volume", || machine.app().driver().is_ready()).await;
    let server = machine.app().driver().volumes.all()[0].server().unwrap();
    assert_eq!(&*server.instance(), "old");
    assert_eq!((old.prepares(), new.prepares()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_volumes_connection_is_not_taken() {
    for returning in [Returning::AnotherFile, Returning::AnotherVolume] {
        let machine = Machine::new();
        let process = DriverProcess::started(&machine).await;
        let behaviour = Behaviour { returning, ..Behaviour::default() };
        let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
        for number in 1..=2 {
            let (id, uid) = (format!("csi-{number}"), format!("uid-{number}"));
            machine.publish(&id, &uid, "token").await.unwrap();
        }
        process.kill();
        let process = DriverProcess::started(&machine).await;
        agent.connect(&machine.run_dir()).await;
        eventually("it is refused", || {
            log(&machine).matches("is not the volume's connection").count() >= 2
        })
        .await;
        assert_eq!(process.devices(), 0, "{returning:?}");
        assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a", "and is served on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_the_version_before_is_served_with_as_before() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let behaviour = Behaviour { returning: Returning::Unknown, ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    process.kill();
    let process = DriverProcess::started(&machine).await;
    agent.connect(&machine.run_dir()).await;
    agent.wait_for(|asked| matches!(asked, Asked::Return { .. })).await;
    machine.publish("csi-1", "uid-1", "second").await.unwrap();
    let token = Asked::Token { volume: "csi-1".to_owned(), tokens: "second".to_owned() };
    agent.wait_for(|asked| *asked == token).await;
    assert_eq!((process.devices(), agent.prepares()), (0, 1));
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty());
}
