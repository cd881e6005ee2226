//! What the process gives up, and what never leaves it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::agent::Agent;
use crate::behaviour::Behaviour;
use crate::driver_process::{DriverProcess, log};
use crate::machine::{Machine, agent_gid, eventually};

const CAP_SYS_ADMIN: u64 = 1 << 21;

fn status_field(task: &Path, name: &str) -> String {
    let status = std::fs::read_to_string(task.join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_keeps_sys_admin_only_and_that_is_enough() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
    let tasks: Vec<_> =
        std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().collect();
    assert!(tasks.len() > 1);
    for task in tasks {
        let task = task.unwrap().path();
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let kept = u64::from_str_radix(&status_field(&task, set), 16).unwrap();
            assert_eq!(kept, CAP_SYS_ADMIN, "{set} of {}", task.display());
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status_field(&task, set), 16).unwrap(), 0);
        }
        assert_eq!(status_field(&task, "NoNewPrivs"), "1");
    }
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty() && !machine.target("uid-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_journal_are_private() {
    let machine = Machine::new();
    let _process = DriverProcess::started(&machine).await;
    let found = |name: &str| std::fs::metadata(machine.path(name)).unwrap();
    let agents = found("run/node.sock");
    assert_eq!((agents.mode() & 0o777, agents.uid(), agents.gid()), (0o660, 0, agent_gid()));
    for name in ["csi/csi.sock", "kubelet/plugins_registry/csi.sotto.dev-reg.sock"] {
        assert_eq!(found(name).permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(found("run/volumes").mode() & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_in_the_log_or_the_journal() {
    let machine = Machine::new();
    let _process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    for _ in 0..2 {
        machine.publish("csi-1", "uid-1", "canary-token").await.unwrap();
    }
    agent.die().await;
    machine.publish("csi-1", "uid-1", "canary-token").await.unwrap();
    let journal = std::fs::read_to_string(machine.path("run/volumes/csi-1.json")).unwrap();
    assert!(journal.contains("payments-db"));
    let log = log(&machine);
    assert!(log.contains("published"), "the detector sees the log");
    assert!(!journal.contains("canary") && !log.contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_descriptor_is_left_of_volumes_that_are_gone() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    for number in 0..10 {
        machine.publish(&format!("csi-{number}"), &format!("uid-{number}"), "t").await.unwrap();
    }
    assert_eq!(process.devices(), 10, "the driver holds one each");
    for number in 0..10 {
        machine.unpublish(&format!("csi-{number}"), &format!("uid-{number}")).await.unwrap();
    }
    assert_eq!(process.devices(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_descriptor_is_left_of_answers_that_the_driver_gave() {
    let machine = Machine::new();
    let process = DriverProcess::started_with(&machine, &["--request-deadline=1s"]).await;
    let devices = async |what, wanted| {
        eventually(what, || process.devices() == wanted).await;
    };
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(process.devices(), 1);
    agent.die().await;
    devices("the driver answers on a device of its own", 2).await;
    let next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    devices("it stops when there is an agent", 1).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
    next.die().await;
    devices("it answers again", 2).await;
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    devices("nothing is left", 0).await;
}
