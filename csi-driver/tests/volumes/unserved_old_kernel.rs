//! The same where the kernel can't send a request again (before Linux 6.9), played by `resend: false`.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::{Machine, eventually};
use crate::readers::{Asking, Cat, ECONNABORTED, EIO, ENOMEM};
use crate::unserved::opened;

const DEADLINE: Duration = Duration::from_secs(2);

async fn machine() -> Machine {
    Machine::started_with(|settings| {
        settings.request_deadline = DEADLINE;
        settings.resend = false;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_with_an_agent_is_an_error_at_once_and_the_mount_lives_on() {
    let machine = machine().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let kept = opened(&machine.target("uid-1").join("who")).await;
    agent.mute();
    let lost = Asking::reread(&kept);
    agent.swallowed(1).await;
    let before = Instant::now();
    agent.die().await;
    let (errno, at) = lost.errno().await;
    assert_eq!(errno, ECONNABORTED, "after {:?}", at - before);
    assert!(at - before < DEADLINE, "{:?}", at - before);

    // What nobody had read yet waits for the next agent.
    let mut waiting = Asking::reread(&kept);
    assert!(waiting.still_waits(Duration::from_millis(200)).await);
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    assert_eq!(waiting.errno().await.0, 0);
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
    assert_eq!(Asking::reread(&kept).errno().await.0, 0, "the old fd works on");
    assert!(next.asked().contains(&Asked::Serve { volume: "csi-1".to_owned(), resend: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_readers_get_an_error_and_later_the_next_agent() {
    let machine = machine().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let file = machine.target("uid-1").join("who");
    let kept = opened(&file).await;
    let before = Instant::now();
    agent.die().await;
    let reading = Asking::reread(&kept);
    for (asking, wanted) in [(reading, EIO), (Asking::stat(&file), ENOMEM)] {
        let (errno, at) = asking.errno().await;
        assert!(errno == wanted && at - before >= DEADLINE, "{errno} {:?}", at - before);
    }
    for name in ["b", "c"] {
        let next = Agent::connected(&machine.run_dir(), name, Behaviour::default()).await;
        eventually("the volume is served again", || {
            machine.app().driver().volumes.all()[0].server().is_some()
        })
        .await;
        assert_eq!(machine.who_serves("uid-1").await.unwrap(), name);
        assert_eq!(Asking::reread(&kept).errno().await.0, 0);
        next.die().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_unpublished_under_an_agent_that_holds_its_readers() {
    let machine = machine().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.mute();
    let mut cat = Cat::of(&machine.target("uid-1").join("who"));
    agent.swallowed(1).await;
    // It lives, keeps what it has read, and has no link: nobody can take that from it.
    agent.freeze().await;
    agent.disconnect().await;
    assert!(!cat.dies().await && cat.state() == 'D');
    let before = Instant::now();
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(cat.dies().await && machine.mounts().is_empty());
}
