//! `sotto-agent exec`: values of files into the environment of a command, and into nothing else.

use std::path::Path;
use std::time::Duration;

use sotto_dev::bao::Bao;
use sotto_dev::node::Injected;
use sotto_dev::process::{Program, Running, Stream};
use sotto_tests::scene::Scene;
use sotto_tests::sidecars::{PATIENCE, scene};

fn exec(scene: &Scene<Bao>, secrets: &Path, arguments: &[&str]) -> Program {
    let program = Program::new("sotto-agent exec", scene.node().path("bin/sotto-agent"));
    let from = ["exec".to_owned(), format!("--from={}", secrets.display())];
    program.arguments(from).arguments(arguments.iter().copied())
}

async fn delivered() -> anyhow::Result<(Scene<Bao>, Injected, std::path::PathBuf)> {
    let scene = scene().await?;
    let (pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    Ok((scene, pod, secrets))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_finds_the_values_in_its_environment_and_no_parent_stays() -> anyhow::Result<()> {
    let (scene, mut pod, secrets) = delivered().await?;
    let script = "echo \"$DB_PASSWORD $DB_USER\"; exec cat /proc/$PPID/comm";
    let program = exec(
        &scene,
        &secrets,
        &["--env=DB_PASSWORD=password", "--env=DB_USER=tls/user", "--", "sh", "-c", script],
    );
    let running = Running::start(program).await?;
    assert!(running.wait(PATIENCE).await?.success(), "{}", running.log().tail());
    let lines = running.log().lines(Stream::Output);
    assert_eq!(lines[0], "p-1 u-1");
    assert!(!lines[1].contains("sotto-agent"), "it became the command: {lines:?}");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_names_each_file_is_a_variable() -> anyhow::Result<()> {
    let (scene, mut pod, secrets) = delivered().await?;
    let running = Running::start(exec(&scene, &secrets, &["--", "env"])).await?;
    assert!(running.wait(PATIENCE).await?.success(), "{}", running.log().tail());
    let lines = running.log().lines(Stream::Output);
    assert!(lines.iter().any(|line| line.ends_with("=p-1")), "{lines:?}");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_there_is_named_and_nothing_is_started() -> anyhow::Result<()> {
    let (scene, mut pod, secrets) = delivered().await?;
    let program =
        exec(&scene, &secrets, &["--timeout=1s", "--env=X=nowhere", "--", "echo", "started"]);
    let running = Running::start(program).await?;
    assert!(!running.wait(Duration::from_secs(60)).await?.success());
    let said = running.log().text();
    assert!(said.contains("nowhere") && !said.contains("started"), "{said}");
    assert!(!said.contains("p-1"), "{said}");
    pod.end(scene.node()).await?;
    Ok(())
}
