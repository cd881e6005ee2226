//! The pod's socket, tried by whoever isn't the pod's sidecar.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sotto_dev::bao::Bao;
use sotto_dev::node::{AGENT_ID, Injected, may_become};
use sotto_dev::process::{Program, Running};
use sotto_tests::files::read;
use sotto_tests::scene::Scene;
use sotto_tests::sidecars::{PATIENCE, is, scene};

/// Whether this machine can play other users and pods at all; CI runs this as root, with cgroups.
fn can_play(what: bool) -> bool {
    assert!(what || std::env::var_os("CI").is_none(), "CI must play this");
    what
}

/// Runs `program`, which must get nothing, until sotto-node has a record of the refusal.
async fn is_refused_and_audited(
    scene: &Scene<Bao>,
    victim: &Injected,
    program: Program,
) -> anyhow::Result<Value> {
    let before = refusals(scene, victim);
    let intruder = Running::start(program).await?;
    let one_more = |records: &[Value]| count(records, victim) > before;
    let records = scene.node().audited("the refusal", PATIENCE, one_more).await?;
    intruder.kill().await?;
    let record = records.iter().rfind(|it| is(it, "handoff", "denied"));
    Ok(record.cloned().unwrap_or_default())
}

fn count(records: &[Value], victim: &Injected) -> usize {
    let of_victim =
        |it: &&Value| is(it, "handoff", "denied") && it["pod_uid"] == victim.pod.uid.as_str();
    records.iter().filter(of_victim).count()
}

fn refusals(scene: &Scene<Bao>, victim: &Injected) -> usize {
    count(&scene.node().audit(), victim)
}

/// A sidecar of the pod `of` at the socket of another pod.
fn at_the_socket_of(scene: &Scene<Bao>, of: &Injected, victim: &Path) -> Program {
    let token = format!("--token={}/token", of.token_directory().display());
    let mut program = of.program(scene.node(), &[token]);
    program.arguments.insert(0, format!("--handoff={}", victim.display()));
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_at_the_socket_and_that_is_on_the_audit_record()
-> anyhow::Result<()> {
    if !can_play(may_become(1_000)) {
        return Ok(());
    }
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    for user in [1_000, 0] {
        let program = at_the_socket_of(&scene, &pod, &pod.handoff_path()).user(Some((user, user)));
        // Root is no user that it runs as, nor is another one that of its driver.
        let program = program.arguments((user == 0).then_some("--development"));
        let record = is_refused_and_audited(&scene, &pod, program).await?;
        assert!(record["reason"].as_str().is_some_and(|it| !it.is_empty()), "{record}");
    }
    assert_eq!(read(secrets.join("password")).await?, "p-1", "the pod's own sidecar serves on");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_pod_is_refused_at_the_socket_and_that_is_on_the_audit_record()
-> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut other, _) = scene.delivered("web-0", &[]).await?;
    if !can_play(other.cgroup().is_some()) {
        return Ok(other.end(scene.node()).await?);
    }
    // The victim's own sidecar isn't there yet: the socket is free to be taken.
    let mut victim = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&victim).await?;
    victim.show_handoff(scene.node())?;
    let program = at_the_socket_of(&scene, &other, &victim.handoff_path());
    assert_eq!(program.user.map(|(uid, _)| uid), may_become(AGENT_ID).then_some(AGENT_ID));
    is_refused_and_audited(&scene, &victim, program).await?;
    // A probe that isn't the pod's is told nothing either.
    let mut probe = other.probe_program(scene.node());
    probe.arguments =
        vec!["probe".to_owned(), format!("--handoff={}", victim.handoff_path().display())];
    let probe = Running::start(probe).await?;
    assert!(!probe.wait(Duration::from_secs(10)).await?.success());
    victim.start_sidecar(scene.node()).await?;
    victim.ready(scene.node(), PATIENCE).await?;
    let secrets = victim.show_secrets(scene.node())?;
    assert_eq!(read(secrets.join("password")).await?, "p-1", "it was not kept from its own");
    victim.end(scene.node()).await?;
    other.end(scene.node()).await?;
    Ok(())
}

/// The detector: the very same process, in the cgroup of the pod, is let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_process_in_the_pods_own_cgroup_is_let_in() -> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.injected("checkout-0", &[]).await?;
    scene.publish_injected(&pod).await?;
    pod.show_handoff(scene.node())?;
    let program = at_the_socket_of(&scene, &pod, &pod.handoff_path());
    let sidecar = Running::start(program).await?;
    let asks = |records: &[Value]| {
        let of_pod = |it: &&Value| it["pod_uid"] == pod.pod.uid.as_str();
        records.iter().filter(of_pod).any(|it| is(it, "handoff", "denied"))
    };
    // Without a client certificate the store doesn't let it in; the driver does.
    let connected = sidecar.line("what it was given", PATIENCE, |line| line.contains("main"));
    connected.await?;
    assert!(!asks(&scene.node().audit()));
    sidecar.kill().await?;
    pod.end(scene.node()).await?;
    Ok(())
}

/// Sockets below a directory.
fn sockets(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    use std::os::unix::fs::FileTypeExt;
    let entries: Result<Vec<_>, _> = std::fs::read_dir(directory)?.collect();
    let is_socket = |it: &std::fs::DirEntry| it.file_type().is_ok_and(|kind| kind.is_socket());
    Ok(entries?.iter().filter(|it| is_socket(it)).map(std::fs::DirEntry::path).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_sees_its_own_socket_and_no_other() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut one, _) = scene.delivered("checkout-0", &[]).await?;
    let (mut other, _) = scene.delivered("checkout-1", &[]).await?;
    for pod in [&one, &other] {
        let seen = sockets(&pod.handoff_path())?;
        let names: Vec<_> = seen.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["handoff.sock"], "not the node agent's, not another pod's");
        assert_eq!(std::fs::read_dir(pod.handoff_path())?.count(), 1);
    }
    one.end(scene.node()).await?;
    assert!(other.probe(scene.node()).await?.is_none(), "the other one's is its own");
    other.end(scene.node()).await?;
    Ok(())
}
