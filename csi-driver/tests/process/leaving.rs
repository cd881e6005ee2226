//! SIGTERM, and command lines that don't start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::driver_process::{DriverProcess, log};
use crate::machine::{Machine, eventually};

const REGISTRATION: &str = "kubelet/plugins_registry/csi.sotto.dev-reg.sock";

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_sockets_go_and_mounts_stay() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let _agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    process.terminate();
    let status = process.ended().await;
    assert!(status.success(), "{}", log(&machine));
    for name in [REGISTRATION, "csi/csi.sock", "run/node.sock"] {
        assert!(!machine.path(name).exists(), "{name}");
    }
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_a_pending_mount_is_finished_first() {
    let machine = Arc::new(Machine::new());
    let process = DriverProcess::started(&machine).await;
    let gate = Arc::new(Semaphore::new(0));
    let behaviour = Behaviour { gate: Some(Arc::clone(&gate)), ..Behaviour::default() };
    let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
    let calling = Arc::clone(&machine);
    let call = tokio::spawn(async move { calling.publish("csi-1", "uid-1", "token").await });
    agent.wait_for(|asked| matches!(asked, Asked::Prepare { .. })).await;
    process.terminate();
    eventually("the driver begins to leave", || !machine.path(REGISTRATION).exists()).await;
    let refused = machine.publish("csi-2", "uid-2", "token").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "nothing new is begun");
    gate.add_permits(1);
    call.await.unwrap().unwrap();
    assert!(process.ended().await.success());
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_a_volume_without_an_agent_is_waited_for() {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.die().await;
    eventually("the driver noticed", || log(&machine).contains("nobody serves the volume yet"))
        .await;
    process.terminate();
    eventually("the driver begins to leave", || !machine.path(REGISTRATION).exists()).await;
    let _next = Agent::connected(&machine.run_dir(), "b", Behaviour::default()).await;
    assert!(process.ended().await.success());
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_a_volume_that_stays_without_an_agent_is_named_as_lost() {
    let machine = Machine::new();
    let more = ["--hand-over-deadline=1s", "--request-deadline=1s"];
    let process = DriverProcess::started_with(&machine, &more).await;
    let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    agent.die().await;
    eventually("the driver answers readers itself", || process.devices() == 2).await;
    let before = std::time::Instant::now();
    process.terminate();
    assert!(process.ended().await.success(), "{}", log(&machine));
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    let log = log(&machine);
    let lost = log.lines().find(|line| line.contains("its mount ends with this process")).unwrap();
    assert!(lost.contains("csi-1") && lost.contains("web-0"), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_said_with_status_64() {
    for (more, phrase) in [
        (&["--driver-name=a/b", "--registration-dir=relative"][..], "--driver-name"),
        (&["--unknown"], "--unknown"),
        (&["--log=a=b=c"], "log filter"),
        (&["--kubelet-dir=/nonexistent"], "--kubelet-dir"),
    ] {
        let machine = Machine::new();
        let status = started_with(&machine, more).await;
        assert_eq!(status.code(), Some(64), "{more:?}");
        assert!(log(&machine).contains(phrase), "{}", log(&machine));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_directory_on_a_disk_is_refused() {
    let on_disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run_dir = format!("--run-dir={}", on_disk.path().display());
    let machine = Machine::new();
    let status = started_with(&machine, &[&run_dir]).await;
    assert_eq!(status.code(), Some(64));
    assert!(log(&machine).contains("is not on tmpfs"), "{}", log(&machine));
}

/// Later arguments would be duplicates: those of the machine's that are given again are left out.
async fn started_with(machine: &Machine, more: &[&str]) -> std::process::ExitStatus {
    let key = |argument: &str| argument.split('=').next().unwrap().to_owned();
    let given: Vec<_> = more.iter().map(|argument| key(argument)).collect();
    let rest =
        machine.command_line().into_iter().filter(|argument| !given.contains(&key(argument)));
    let log = std::fs::File::create(machine.path("log")).unwrap();
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_sotto-csi"))
        .args(rest)
        .args(more)
        .stderr(log)
        .kill_on_drop(true)
        .spawn();
    let ended =
        tokio::time::timeout(crate::machine::PATIENCE, async { child.unwrap().wait().await });
    ended.await.expect("it does not start").unwrap()
}
