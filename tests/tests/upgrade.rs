//! Rolling updates: the DaemonSets' surge and their order, played with real processes while applications read.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::store::{DevStore, Operation};
use sotto_tests::readers::Readers;
use sotto_tests::scene::Scene;
use sotto_tests::wait::until;

const VOLUMES: usize = 5;

/// A machine with pods that read.
async fn scene() -> anyhow::Result<(Scene<DevStore>, Vec<Pod>, Vec<PathBuf>)> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    let objects =
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";
    scene.class("db", objects)?;
    let (mut pods, mut files) = (Vec::new(), Vec::new());
    for number in 0..VOLUMES {
        let pod = scene.pod(&format!("checkout-{number}"), "checkout", "db");
        files.push(scene.publish(&pod).await?.join("p"));
        pods.push(pod);
    }
    Ok((scene, pods, files))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_holds_every_volume_before_the_old_agent_leaves() -> anyhow::Result<()> {
    let (mut scene, pods, files) = scene().await?;
    let readers = Readers::start(4, files.clone())?;
    let inode = std::fs::metadata(&files[0])?.ino();
    for round in 1..=2 {
        let logins = scene.store().count(Operation::Login);
        let successor = scene.node().successor().await?;
        scene.node_mut().succeeded_by(successor).await?;
        assert_eq!(scene.store().count(Operation::Login), logins + VOLUMES, "round {round}");
        readers.read_on(200).await?;
    }
    // The old one is gone, and with it its logins' use: the present one fetched before, not after.
    scene.store().go_dark();
    readers.read_on(200).await?;
    let seen = readers.stop();
    assert_eq!(seen.failures(), Vec::<String>::new());
    assert_eq!(seen.values().into_iter().collect::<Vec<_>>(), ["p-1"]);
    assert_eq!(std::fs::metadata(&files[0])?.ino(), inode);
    scene.store().come_back().await?;
    for pod in &pods {
        scene.stop(pod).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_is_not_ready_while_the_store_is_down_and_says_why() -> anyhow::Result<()> {
    let (mut scene, pods, files) = scene().await?;
    let readers = Readers::start(2, files)?;
    scene.store().go_dark();
    let successor = scene.node().successor().await?;
    let said = async {
        loop {
            let said = scene.node().probe(&successor).await?;
            match said {
                Some(said) if said.contains("volumes of another agent are not held ready") => {
                    return anyhow::Ok(said);
                }
                Some(_) => tokio::task::yield_now().await,
                None => anyhow::bail!("it is ready"),
            }
        }
    };
    let said = tokio::time::timeout(std::time::Duration::from_secs(60), said).await??;
    assert!(said.contains("store main"), "{said}");
    readers.read_on(100).await?;
    scene.store().come_back().await?;
    scene.node_mut().succeeded_by(successor).await?;
    readers.read_on(100).await?;
    assert_eq!(readers.stop().failures(), Vec::<String>::new());
    for pod in &pods {
        scene.stop(pod).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_between_standing_by_and_serving_is_not_undone() -> anyhow::Result<()> {
    let (mut scene, pods, _) = scene().await?;
    let mut pod = scene.pod("rotating", "checkout", "db");
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let target = scene.publish(&pod).await?;
    let successor = scene.node().successor().await?;
    let ready = async {
        while scene.node().probe(&successor).await?.is_some() {}
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ready).await??;
    scene.write("payments/checkout/db", json!({"password": "p-2"})).await?;
    let file = target.join("p");
    until("the new value", || std::fs::read_to_string(&file).is_ok_and(|it| it == "p-2")).await?;
    scene.node_mut().succeeded_by(successor).await?;
    let value = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await??;
    assert_eq!(value, "p-2");
    assert_eq!(std::fs::read_link(target.join("..data"))?, std::path::Path::new("..2"));
    scene.stop(&pod).await?;
    for pod in &pods {
        scene.stop(pod).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_daemonsets_rolled_at_the_same_time_fail_no_read() -> anyhow::Result<()> {
    let (mut scene, pods, files) = scene().await?;
    let readers = Readers::start(4, files)?;
    for _ in 0..2 {
        // The driver goes first and comes back while the new agent is on its way; then it goes once more.
        let successor = scene.node().successor().await?;
        scene.node_mut().roll_csi().await?;
        scene.node_mut().succeeded_by(successor).await?;
        scene.node_mut().roll_csi().await?;
        readers.read_on(200).await?;
    }
    let seen = readers.stop();
    assert_eq!(seen.failures(), Vec::<String>::new());
    for pod in &pods {
        scene.stop(pod).await?;
    }
    Ok(())
}
