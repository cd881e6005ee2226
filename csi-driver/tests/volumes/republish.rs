//! NodePublishVolume of a target on which something is mounted: always OK, never touched.

use rustix::mount::{MountFlags, mount};

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::Machine;

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_is_passed_on() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "first").await.unwrap();
    let before = machine.mounts();
    machine.publish("csi-1", "uid-1", "second").await.unwrap();
    let token = Asked::Token { volume: "csi-1".to_owned(), tokens: "second".to_owned() };
    assert_eq!(agent.asked().last(), Some(&token));
    assert_eq!(machine.mounts(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_agent_gone_it_is_ok_and_the_mount_untouched() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let before = machine.mounts();
    agent.die().await;
    // Nobody serves: a stat of the target would never return.
    machine.publish("csi-1", "uid-1", "fresh").await.unwrap();
    assert_eq!(machine.mounts(), before);
    assert!(machine.condition("csi-1", "uid-1").await.unwrap().abnormal);
    // The next agent is given the freshest token.
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    next.wait_for(|asked| matches!(asked, Asked::Serve { .. })).await;
    assert!(matches!(&next.asked()[0], Asked::Prepare { tokens, .. } if tokens == "fresh"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_first_publish_would_be_refused_is_ok() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let mut request = machine.request("csi-1", "uid-1", "");
    request.volume_context.clear();
    machine.send(request).await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_the_volume_gets_it_again() {
    let machine = Machine::started().await;
    let first = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let second = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    first.die().await;
    second.wait_for(|asked| matches!(asked, Asked::Serve { resend: true, .. })).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_mount_is_left_and_its_unpublish_takes_it_away() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    let target = machine.target("uid-1");
    std::fs::create_dir_all(&target).unwrap();
    mount("tmpfs", &target, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(target.join("password"), "reference driver's").unwrap();
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("password")).unwrap(), "reference driver's");
    let told = Asked::Notice { reason: "ForeignMount".to_owned() };
    agent.wait_for(|asked| *asked == told).await;
    assert_eq!(agent.asked(), [told], "it is told, and asked for nothing");
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty() && !target.exists());
}
