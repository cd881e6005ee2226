//! NodeUnpublishVolume, and what kubelet may ask before.

use std::io::Read;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::Machine;

#[tokio::test(flavor = "multi_thread")]
async fn unpublish_twice_is_ok_and_leaves_nothing() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    for _ in 0..2 {
        machine.unpublish("csi-1", "uid-1").await.unwrap();
        assert!(machine.mounts().is_empty() && machine.journal().is_empty());
        assert!(!machine.target("uid-1").exists());
        assert!(machine.target("uid-1").parent().unwrap().exists(), "kubelet's part stays");
    }
    assert!(agent.asked().contains(&Asked::Release { volume: "csi-1".to_owned() }));
    let gone = machine.condition("csi-1", "uid-1").await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_published_is_unpublished() {
    let machine = Machine::started().await;
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    std::fs::create_dir_all(machine.target("uid-1")).unwrap();
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(!machine.target("uid-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_does_not_keep_a_volume() {
    let machine = Machine::started().await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let path = machine.target("uid-1").join("who");
    let file = tokio::task::spawn_blocking(|| std::fs::File::open(path)).await.unwrap();
    let mut file = file.unwrap();
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty());
    let read = tokio::task::spawn_blocking(move || file.read(&mut [0; 16])).await.unwrap();
    assert!(read.is_err(), "an error now, no wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_nobody_answers_does_not_keep_a_volume() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.die().await;
    let path = machine.target("uid-1").join("who");
    let reading = tokio::task::spawn_blocking(|| std::fs::read(path));
    let before = Instant::now();
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(reading.await.unwrap().is_err());
    assert!(!machine.target("uid-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_somebody_unmounted_is_forgotten_and_mounted_afresh() {
    let machine = Machine::started().await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    let target = machine.target("uid-1");
    rustix::mount::unmount(target.as_path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!((machine.mounts().len(), agent.prepares()), (1, 2));
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_content_is_not_removed() {
    let machine = Machine::started().await;
    let file = machine.target("uid-1").join("precious");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "x").unwrap();
    assert!(machine.unpublish("csi-1", "uid-1").await.is_err());
    assert!(file.exists());
}
