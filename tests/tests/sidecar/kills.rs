//! The sidecar and the node agent killed while applications read.

use std::path::Path;
use std::time::Duration;

use sotto_dev::node::Restart;
use sotto_tests::files::read;
use sotto_tests::readers::Readers;
use sotto_tests::sidecars::{self, PATIENCE, scene, shows};
use sotto_tests::wait::until;

fn files(secrets: &Path) -> Vec<std::path::PathBuf> {
    ["password", "tls/user", "..data/password"].map(|name| secrets.join(name)).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_ten_times_fails_no_read() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    let readers = Readers::start(4, files(&secrets))?;
    readers.read_on(100).await?;
    for _ in 0..10 {
        pod.kill_sidecar().await?;
        pod.restart_sidecar(scene.node(), Restart::Immediate).await?;
        pod.ready(scene.node(), PATIENCE).await?;
        readers.read_on(100).await?;
    }
    let seen = readers.stop();
    assert_eq!(seen.failures(), Vec::<String>::new(), "{}", scene.last_lines_of(&pod));
    assert_eq!(seen.values().into_iter().collect::<Vec<_>>(), ["p-1", "u-1"]);
    pod.end(scene.node()).await?;
    // Those of the containers that were killed end by their TTL; the last one's was revoked.
    assert!(sidecars::pod_tokens(scene.store()).await?.len() <= 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_is_replaced_by_its_supervisor_though_the_store_is_down()
-> anyhow::Result<()> {
    let mut scene = sotto_tests::scene::Scene::openbao_durable_for_sidecars().await?;
    sidecars::prepare(&scene).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    let readers = Readers::start(4, files(&secrets))?;
    readers.read_on(100).await?;
    scene.store().process().kill().await?;
    for _ in 0..3 {
        let killed = pod.kill_worker()?;
        until("another worker", || pod.worker().is_some_and(|worker| worker != killed)).await?;
        readers.read_on(100).await?;
    }
    scene.store_mut().restart().await?;
    let seen = readers.stop();
    assert_eq!(seen.failures(), Vec::<String>::new(), "{}", scene.last_lines_of(&pod));
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_serves_on_and_follows_its_store_while_there_is_no_node_agent()
-> anyhow::Result<()> {
    let mut scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[("sotto.dev/refresh", "1s")]).await?;
    let readers = Readers::start(2, files(&secrets))?;
    readers.read_on(50).await?;
    scene.node().agent().kill().await?;
    sidecars::write(&scene, "p-2").await?;
    shows(&secrets.join("password"), "p-2").await?;
    // A restart needs no node agent either: the driver has the class's spec.
    pod.kill_sidecar().await?;
    pod.restart_sidecar(scene.node(), Restart::Immediate).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    readers.read_on(50).await?;
    scene.node_mut().restart_agent().await?;
    sidecars::write(&scene, "p-3").await?;
    shows(&secrets.join("password"), "p-3").await?;
    assert_eq!(readers.stop().failures(), Vec::<String>::new());
    pod.end(scene.node()).await?;
    Ok(())
}

/// Kubelet's pauses are 0.8 s, then 10 s and doubling: readers wait, and none fails within the request deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_wait_through_a_restart_as_kubelet_makes_it() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    let readers = Readers::start(2, files(&secrets))?;
    readers.read_on(50).await?;
    for _ in 0..2 {
        pod.kill_sidecar().await?;
        pod.restart_sidecar(scene.node(), Restart::AsKubelet).await?;
        pod.ready(scene.node(), PATIENCE).await?;
        readers.read_on(50).await?;
    }
    let longest = readers.seen().take_longest();
    assert_eq!(readers.stop().failures(), Vec::<String>::new());
    assert!(longest > Duration::from_secs(10), "the second restart takes that long: {longest:?}");
    assert_eq!(read(secrets.join("password")).await?, "p-1");
    pod.end(scene.node()).await?;
    Ok(())
}
