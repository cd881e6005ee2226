//! Agents that come and go under a mount.

use std::path::Path;

use sotto_csi::shown::Shown;
use tonic::Code;

use crate::agent::{Agent, Asked};
use crate::behaviour::{Behaviour, Returning};
use crate::machine::{Machine, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_next_agent_and_succeeds() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.die().await;
    let path = machine.target("uid-1").join("who");
    let reading = tokio::task::spawn_blocking(|| std::fs::read_to_string(path));
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    assert_eq!(reading.await.unwrap().unwrap(), "b");
    let serve = Asked::Serve { volume: "csi-1".to_owned(), resend: true };
    assert!(next.asked().contains(&serve));
    eventually("the volume is served again", || {
        machine.app().driver().volumes.all()[0].server().is_some()
    })
    .await;
    assert!(!machine.condition("csi-1", "uid-1").await.unwrap().abnormal);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_agent_connected_anew_is_not_asked_again() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.disconnect().await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    agent.connect(&machine.run_dir()).await;
    eventually("the volume has its agent back", || {
        machine.app().driver().volumes.all()[0].server().is_some()
    })
    .await;
    assert_eq!(agent.prepares(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_worker_of_a_supervisor_is_given_what_it_was_not_left() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.die().await;
    let next = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    let asked = next.asked();
    assert!(matches!(&asked[0], Asked::Return { volume } if volume == "csi-1"), "{asked:?}");
    assert!(matches!(&asked[1], Asked::Prepare { volume, .. } if volume == "csi-1"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_knows_no_return_is_prepared_again() {
    let machine = Machine::started().await;
    let behaviour = Behaviour { returning: Returning::Unknown, ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.disconnect().await;
    agent.connect(&machine.run_dir()).await;
    eventually("the volume has its agent back", || {
        machine.app().driver().volumes.all()[0].server().is_some()
    })
    .await;
    assert_eq!(agent.prepares(), 2);
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_is_told_what_the_mount_shows_and_which_numbers_are_taken() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let volume = machine.app().driver().volumes.all().remove(0);
    let told = || {
        let prepare = volume.prepare(Path::new("/t"), &volume.credentials().unwrap());
        let wanted = prepare.wanted.map(|wanted| (wanted.generation, wanted.content));
        (prepare.generation, prepare.content, wanted, prepare.last_generation)
    };
    let of = |generation, content| Shown { generation, content, ..Shown::default() };
    assert_eq!(told(), (1, 0, None, 1));
    volume.may_show(of(4, 7));
    assert_eq!(told(), (1, 0, Some((4, 7)), 4));
    volume.shows(of(3, 9));
    assert_eq!(told(), (3, 9, Some((4, 7)), 4));
    volume.shows(of(2, 8));
    assert_eq!(told(), (3, 9, Some((4, 7)), 4), "a mount never shows an older one again");
    volume.shows(of(4, 7));
    assert_eq!(told(), (4, 7, None, 4));
    let told = volume.prepare(Path::new("/t"), &volume.credentials().unwrap());
    let older: Vec<_> = told.older.iter().map(|older| older.generation).collect();
    assert_eq!(older, [1, 3], "whoever resolved a path then may be on its way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_agents_volumes_stay_with_it_when_another_connects() {
    let machine = Machine::started().await;
    let old = Agent::connected(&machine.run_dir(), "old", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let new = Agent::connected(&machine.run_dir(), "new", Behaviour::default()).await;
    eventually("the new agent is the current one", || {
        let current = machine.app().driver().broker.current();
        current.is_some_and(|agent| &*agent.instance() == "new")
    })
    .await;
    machine.publish("csi-2", "uid-2", "token").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "old");
    assert_eq!(machine.who_serves("uid-2").await.unwrap(), "new");
    eventually("the new agent stands by for the old one's volume", || new.prepares() == 2).await;
    let serves = |agent: &Agent, volume: &str| {
        agent
            .asked()
            .iter()
            .any(|it| matches!(it, Asked::Serve { volume: served, .. } if served == volume))
    };
    assert!(serves(&old, "csi-1") && !serves(&new, "csi-1"), "standing by is not serving");
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "old");
    assert_eq!(old.prepares(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_than_the_agents_is_refused() {
    let machine = Machine::started_with(|settings| settings.agent_uid = 4_242).await;
    let socket = machine.run_dir().join("node.sock");
    let connection = sotto_handoff::socket::connect(&socket).await.unwrap();
    let role = sotto_handoff::message::Role::NodeAgent;
    assert!(sotto_handoff::handshake::hello(&connection, role, "x").await.is_err());
    let status = machine.publish("csi-1", "uid-1", "token").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_calls_itself_a_driver_is_not_taken_for_an_agent() {
    let machine = Machine::started().await;
    let socket = machine.run_dir().join("node.sock");
    let connection = sotto_handoff::socket::connect(&socket).await.unwrap();
    let role = sotto_handoff::message::Role::Driver;
    let _ = sotto_handoff::handshake::hello(&connection, role, "x").await;
    assert!(connection.receive().await.is_err(), "the connection is closed");
    assert!(machine.app().driver().broker.current().is_none());
}
