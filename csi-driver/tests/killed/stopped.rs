//! An agent whose processes are stopped: its socket stays open, and it says nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_csi::settings::Settings;

use crate::agent::{Agent, Asked};
use crate::agent_process::AgentProcess;
use crate::behaviour::{Behaviour, Pinging};
use crate::machine::{Machine, eventually};
use crate::readers::{Asking, EIO, ENOMEM, Racing};

const DEADLINE: Duration = Duration::from_secs(2);
/// Two pings, the question to the mount, and a busy machine.
const LATE: Duration = Duration::from_secs(6);
/// Of anything that must not notice.
const SOON: Duration = Duration::from_secs(2);

fn fast(settings: &mut Settings) {
    settings.ping_interval = Duration::from_millis(50);
    settings.ping_deadline = Duration::from_millis(500);
    settings.request_deadline = DEADLINE;
}

/// `csi-1`, served by a process of its own.
async fn with_process(change: impl FnOnce(&mut Settings)) -> (Machine, AgentProcess) {
    let machine = Machine::started_with(change).await;
    let agent = AgentProcess::connected(&machine.run_dir(), "a").await;
    publish(&machine, "1").await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    (machine, agent)
}

async fn publish(machine: &Machine, number: &str) {
    let (id, uid) = (format!("csi-{number}"), format!("uid-{number}"));
    machine.publish(&id, &uid, "token").await.unwrap();
}

async fn opened(path: &Path) -> Arc<File> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(|| File::open(path)).await.unwrap().map(Arc::new).unwrap()
}

fn is_served(machine: &Machine, number: &str) -> bool {
    let volumes = machine.app().driver().volumes.all();
    let id = format!("csi-{number}");
    volumes.iter().find(|volume| volume.id.as_str() == id).unwrap().server().is_some()
}

pub(crate) async fn its_readers_get_an_error_at_the_deadline_and_are_served_when_it_wakes() {
    let machine = Machine::started_with(fast).await;
    let other = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    publish(&machine, "2").await;
    let agent = AgentProcess::connected(&machine.run_dir(), "a").await;
    publish(&machine, "1").await;
    let file = machine.target("uid-1").join("who");
    let kept = opened(&file).await;
    assert_eq!(Asking::read(&file).errno().await.0, 0);
    agent.stop().await;
    let before = Instant::now();
    let waiting = [
        (Asking::reread(&kept), EIO),
        (Asking::read(&file), ENOMEM),
        (Asking::stat(&file), ENOMEM),
    ];
    for (asking, wanted) in waiting {
        let (errno, at) = asking.errno().await;
        let waited = at - before;
        assert_eq!(errno, wanted, "after {waited:?}");
        assert!(waited >= DEADLINE && waited < DEADLINE + LATE, "{waited:?}");
    }
    let (errno, at) = Asking::read(&file).errno().await;
    assert!(errno == ENOMEM && at - before < DEADLINE + LATE, "nobody waits from now on");
    assert!(machine.condition("csi-1", "uid-1").await.unwrap().abnormal);
    assert_eq!(machine.mounts().len(), 2, "the mounts stay");

    let before = Instant::now();
    assert_eq!(machine.who_serves("uid-2").await.unwrap(), "b");
    publish(&machine, "3").await;
    assert_eq!(machine.who_serves("uid-3").await.unwrap(), "b");
    publish(&machine, "1").await;
    assert!(before.elapsed() < SOON, "nothing else notices: {:?}", before.elapsed());

    agent.go_on();
    eventually("it counts again", || is_served(&machine, "1")).await;
    assert_eq!(Asking::reread(&kept).errno().await.0, 0, "the old fd works on");
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    assert!(!machine.condition("csi-1", "uid-1").await.unwrap().abnormal);
    assert_eq!(other.prepares(), 2, "its volume went to nobody");
    machine.unpublish("csi-1", "uid-1").await.unwrap();
}

pub(crate) async fn without_pings_its_readers_would_wait_for_ever() {
    let change = |settings: &mut Settings| {
        fast(settings);
        settings.ping_interval = Duration::from_secs(3_600);
    };
    let (machine, agent) = with_process(change).await;
    let file = machine.target("uid-1").join("who");
    agent.stop().await;
    let mut reading = Asking::read(&file);
    assert!(reading.still_waits(DEADLINE + LATE).await, "the other tests show nothing");
    agent.go_on();
    assert_eq!(reading.errno().await.0, 0);
}

pub(crate) async fn it_keeps_no_volume_from_being_unpublished() {
    for is_noticed in [false, true] {
        let (machine, agent) = with_process(|settings| {
            if is_noticed {
                fast(settings);
            }
        })
        .await;
        agent.stop().await;
        let reading = Asking::read(&machine.target("uid-1").join("who"));
        if is_noticed {
            eventually("it is noticed", || !is_served(&machine, "1")).await;
        }
        let before = Instant::now();
        machine.unpublish("csi-1", "uid-1").await.unwrap();
        let took = before.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(machine.mounts().is_empty() && machine.journal().is_empty());
        assert!(!machine.target("uid-1").exists());
        assert_ne!(reading.errno().await.0, 0, "its reader is free");
        agent.go_on();
        eventually("it lets go", || agent.devices() == 0).await;
        eventually("it is usable", || machine.app().driver().broker.current().is_some()).await;
        publish(&machine, "2").await;
        assert_eq!(machine.who_serves("uid-2").await.unwrap(), "a");
    }
}

pub(crate) async fn its_volumes_go_to_another_agent_only_when_it_has_ended() {
    let (machine, agent) = with_process(fast).await;
    let file = machine.target("uid-1").join("who");
    let kept = opened(&file).await;
    agent.stop().await;
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    assert_eq!(Asking::reread(&kept).errno().await.0, EIO);
    let served = |asked: &Asked| matches!(asked, Asked::Serve { .. });
    assert!(!next.asked().iter().any(served), "two would serve when it wakes");
    drop(agent);
    eventually("the next agent serves", || is_served(&machine, "1")).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
    assert_eq!(Asking::reread(&kept).errno().await.0, 0);
}

pub(crate) async fn an_agent_of_the_version_before_is_not_taken_for_one() {
    let machine = Machine::started_with(fast).await;
    let behaviour = Behaviour { pinging: Pinging::Unknown, ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    publish(&machine, "1").await;
    agent.pinged(20).await;
    assert!(is_served(&machine, "1"));
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

pub(crate) async fn an_agent_that_answers_its_readers_is_not_taken_for_one() {
    let machine = Machine::started_with(fast).await;
    let behaviour = Behaviour { pinging: Pinging::Ignored, ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    publish(&machine, "1").await;
    let path = machine.target("uid-1").join("who");
    let racing = tokio::task::spawn_blocking(|| Racing::on(path, 2)).await.unwrap();
    agent.pinged(12).await;
    assert!(is_served(&machine, "1"));
    assert_eq!(racing.errnos().into_keys().collect::<Vec<_>>(), [0], "reads failed");
    racing.stop().await;
}

pub(crate) async fn readers_that_race_with_its_wake_up_get_their_file_or_an_error_and_none_hangs() {
    const ROUNDS: usize = 4;
    let (machine, agent) = with_process(|settings| {
        fast(settings);
        settings.request_deadline = Duration::from_millis(20);
    })
    .await;
    let path = machine.target("uid-1").join("who");
    let racing = tokio::task::spawn_blocking(|| Racing::on(path, 2)).await.unwrap();
    for round in 1..=ROUNDS {
        racing.more(true, 20).await;
        agent.stop().await;
        racing.more(false, 10 * round).await;
        agent.go_on();
        eventually("it counts again", || is_served(&machine, "1")).await;
        // Those that were under way may still bring an error.
        racing.more(true, 20).await;
        let before = racing.errnos();
        racing.more(true, 200).await;
        let after = racing.errnos();
        for errno in [EIO, ENOMEM] {
            assert_eq!(after.get(&errno), before.get(&errno), "nobody but the agent answers");
        }
    }
    let errnos = racing.errnos();
    assert!(errnos.keys().all(|errno| [0, EIO, ENOMEM].contains(errno)), "{errnos:?}");
    assert!(errnos.len() > 1, "{errnos:?}");
    let longest = racing.stop().await;
    assert!(longest < LATE, "{longest:?}");
}
