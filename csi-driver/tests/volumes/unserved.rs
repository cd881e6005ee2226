//! Readers of a volume that nobody serves.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_core::fuse_init::IdMapping;
use sotto_core::identity::VolumeId;
use sotto_core::secret::SecretBytes;
use sotto_csi::credentials::Credentials;
use sotto_csi::mount::{Fresh, Options};
use sotto_csi::target::TargetPath;
use sotto_csi::volume::Volume;
use tokio::sync::Semaphore;

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::{Machine, eventually, spec};
use crate::readers::{Asking, Cat, EIO, ENOMEM, Racing};

const DEADLINE: Duration = Duration::from_secs(2);
/// A busy machine's.
const LATE: Duration = Duration::from_secs(2);

pub(crate) async fn opened(path: &Path) -> Arc<File> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(|| File::open(path)).await.unwrap().map(Arc::new).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_an_error_at_the_deadline_and_not_before_and_the_next_agent_serves() {
    let machine = Machine::started_with(|settings| settings.request_deadline = DEADLINE).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let file = machine.target("uid-1").join("who");
    let kept = opened(&file).await;
    agent.mute();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push((Asking::reread(&kept), EIO));
        waiting.push((Asking::read(&file), ENOMEM));
        waiting.push((Asking::stat(&file), ENOMEM));
    }
    agent.swallowed(2).await;
    let before = Instant::now();
    agent.die().await;
    for (asking, wanted) in waiting {
        let (errno, at) = asking.errno().await;
        let waited = at - before;
        assert_eq!(errno, wanted, "after {waited:?}");
        assert!(waited >= DEADLINE && waited < DEADLINE + LATE, "{waited:?}");
    }
    let (errno, at) = Asking::read(&file).errno().await;
    assert!(errno == ENOMEM && at - before < DEADLINE + LATE, "nobody waits from now on");

    let _next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    eventually("the volume is served again", || served(&machine)).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
    assert_eq!(Asking::reread(&kept).errno().await.0, 0, "the old fd works on");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_answers_a_reader_would_wait_for_ever() {
    let machine =
        Machine::started_with(|settings| settings.request_deadline = Duration::from_secs(3_600))
            .await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.mute();
    let mut reading = Asking::read(&machine.target("uid-1").join("who"));
    agent.swallowed(1).await;
    agent.die().await;
    assert!(reading.still_waits(2 * DEADLINE).await, "the other tests show nothing");
    let _next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    assert_eq!(reading.errno().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_can_be_killed_as_soon_as_its_agent_is_gone() {
    let machine = Machine::started_with(|settings| settings.request_deadline = DEADLINE).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    // The name is known: two look-ups of an unknown one wait for each other.
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    agent.mute();
    let file = machine.target("uid-1").join("who");
    let mut cat = Cat::of(&file);
    agent.swallowed(1).await;
    agent.freeze().await;
    agent.disconnect().await;
    agent.requests_wait().await;
    assert!(cat.dies().await, "the driver takes the request back at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_killed_before_is_free_at_the_deadline() {
    let machine = Machine::started_with(|settings| settings.request_deadline = DEADLINE).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.mute();
    let mut cat = Cat::of(&machine.target("uid-1").join("who"));
    agent.swallowed(1).await;
    agent.freeze().await;
    assert!(!cat.dies().await && cat.state() == 'D', "an unanswered request keeps its process");
    agent.disconnect().await;
    eventually("an answer frees it", || cat.is_gone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_agent_readers_wait_no_longer_than_the_deadline() {
    let machine = Machine::started_with(|settings| settings.request_deadline = DEADLINE).await;
    let target = machine.target("uid-1");
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    let before = Instant::now();
    mount_unserved(&machine, "csi-1", "uid-1");
    let (errno, at) = Asking::read(&target.join("who")).errno().await;
    assert_eq!(errno, EIO, "of the root's attributes");
    assert!(at - before >= DEADLINE && at - before < DEADLINE + LATE, "{:?}", at - before);
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    agent.wait_for(|asked| matches!(asked, Asked::Serve { .. })).await;
    eventually("the volume is served", || served(&machine)).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    machine.unpublish("csi-1", "uid-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_race_with_hand_overs_get_their_file_or_an_error_and_none_hangs() {
    const ROUNDS: usize = 60;
    let machine =
        Machine::started_with(|settings| settings.request_deadline = Duration::from_millis(20))
            .await;
    let mut agent = Agent::connected(&machine.run_dir(), "0", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let path = machine.target("uid-1").join("who");
    let racing = tokio::task::spawn_blocking(|| Racing::on(path, 2)).await.unwrap();
    for round in 1..=ROUNDS {
        racing.more(true, 20).await;
        agent.die().await;
        if round % 3 != 0 {
            racing.more(false, round % 7 + 1).await;
        }
        let name = round.to_string();
        agent = Agent::connected(&machine.run_dir(), &name, Behaviour::default()).await;
        eventually("the volume is served again", || served(&machine)).await;
        // From here on nobody but the agent answers.
        assert_eq!(machine.who_serves("uid-1").await.unwrap(), name);
    }
    // Those that were under way when it took over may still bring an error.
    racing.more(true, 20).await;
    let before = racing.errnos();
    racing.more(true, 200).await;
    let after = racing.errnos();
    for errno in [EIO, ENOMEM] {
        assert!(after[&errno] > 0 && after[&errno] == before[&errno], "{before:?} {after:?}");
    }
    assert_eq!(after.keys().copied().collect::<Vec<_>>(), [0, EIO, ENOMEM], "{after:?}");
    let longest = racing.stop().await;
    assert!(longest < LATE, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_while_an_agent_is_given_the_connection() {
    let machine =
        Machine::started_with(|settings| settings.request_deadline = Duration::from_millis(20))
            .await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let file = machine.target("uid-1").join("who");
    let kept = opened(&file).await;
    agent.die().await;
    assert_eq!(Asking::reread(&kept).errno().await.0, EIO, "the driver answers");

    let gate = Arc::new(Semaphore::new(0));
    let behaviour = Behaviour { serve_gate: Some(Arc::clone(&gate)), ..Behaviour::default() };
    let next = Agent::connected(&machine.run_dir(), "b", behaviour).await;
    next.wait_for(|asked| matches!(asked, Asked::Serve { .. })).await;
    let mut reading = Asking::reread(&kept);
    assert!(reading.still_waits(Duration::from_millis(500)).await, "two would answer at once");
    gate.add_permits(1);
    assert_eq!(reading.errno().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_while_it_takes_over_does_not_keep_a_volume() {
    let machine = Machine::started_with(|settings| settings.request_deadline = DEADLINE).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    let file = machine.target("uid-1").join("who");
    agent.mute();
    let mut cat = Cat::of(&file);
    agent.swallowed(1).await;
    agent.die().await;
    let gate = Some(Arc::new(Semaphore::new(0)));
    let behaviour = Behaviour { gate, ..Behaviour::default() };
    let hanging = Agent::connected(&machine.run_dir(), "b", behaviour).await;
    hanging.wait_for(|asked| matches!(asked, Asked::Prepare { .. })).await;
    // The driver answers meanwhile.
    assert_eq!(Asking::read(&file).errno().await.0, ENOMEM);

    let before = Instant::now();
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
    assert!(cat.dies().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_refuses_to_serve_does_not_end_the_answers() {
    let machine = Machine::started_with(|settings| settings.request_deadline = DEADLINE).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    agent.die().await;
    let file = machine.target("uid-1").join("who");
    assert_eq!(Asking::read(&file).errno().await.0, ENOMEM);
    let code = sotto_handoff::message::Code::Internal;
    let refuse_serve = Some(sotto_handoff::refusal::Refusal::new(code, "no thread"));
    let behaviour = Behaviour { refuse_serve, ..Behaviour::default() };
    let refusing = Agent::connected(&machine.run_dir(), "b", behaviour).await;
    refusing.wait_for(|asked| matches!(asked, Asked::Serve { .. })).await;
    let before = Instant::now();
    assert_eq!(Asking::read(&file).errno().await.0, ENOMEM);
    assert!(before.elapsed() < DEADLINE, "the deadline has passed long ago");
}

fn served(machine: &Machine) -> bool {
    machine.app().driver().volumes.all()[0].server().is_some()
}

/// What a mount before its `Serve` is, where it is visible by then.
fn mount_unserved(machine: &Machine, id: &str, uid: &str) {
    let (driver, id) = (machine.app().driver(), VolumeId::parse(id).unwrap());
    let relative = machine.target(uid);
    let relative = relative.strip_prefix(machine.path("kubelet")).unwrap();
    let target = TargetPath::from_relative(relative).unwrap();
    let options = Options { id_mapping: IdMapping::Off, context: None, resend: true };
    let fresh = Fresh::create(&id, &options).unwrap();
    let init = fresh.negotiated;
    let directory = driver.kubelet.open_parent(&target).unwrap().make_target().unwrap();
    let connection: OwnedFd = fresh.attach(&directory).unwrap();
    let volume = Volume::new(id, target, spec(uid), init, Some(connection));
    volume.keep_credentials(Credentials::of_tokens(SecretBytes::new(b"token".to_vec())));
    driver.volumes.insert(volume);
    driver.look_for_agents();
}
