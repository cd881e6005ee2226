//! Where a secret or a token must never be: the driver's memory, the journal, the logs, the audit log. The
//! search is shown to find what is there.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_tests::files;
use sotto_tests::memory::in_memory;
use sotto_tests::scene::Scene;

const CANARY: &str = "canary-secret-93b1c7";

fn in_files(directory: &Path, needle: &str) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(in_files(&path, needle)?);
        } else if path.is_file() && String::from_utf8_lossy(&std::fs::read(&path)?).contains(needle)
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_driver_the_journal_or_a_log() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": CANARY})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    assert_eq!(files::read(target.join("p")).await?, CANARY);
    scene.kubelet().republish(&pod, &pod.volumes[0]).await?;

    assert_eq!(in_memory(scene.node().csi().pid(), CANARY.as_bytes())?, 0, "the driver has it");
    assert!(
        in_memory(std::process::id(), CANARY.as_bytes())? > 0,
        "the search finds what is there"
    );
    assert_eq!(in_files(&scene.node().path("run"), CANARY)?, Vec::<String>::new());
    assert_eq!(in_files(&scene.node().path("run"), "eyJ")?, Vec::<String>::new(), "a token");
    assert!(!in_files(&scene.node().path("run"), &pod.uid)?.is_empty(), "the journal is there");
    for process in [scene.node().csi(), scene.node().agent()] {
        let log = process.log().tail();
        assert!(!log.contains(CANARY) && !log.contains("eyJ"), "{log}");
    }
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_volume_is_left_in_the_agent_after_its_end() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": CANARY})).await?;
    scene.class(
        "db",
        "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}",
    )?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    assert_eq!(files::read(target.join("p")).await?, CANARY);
    scene.stop(&pod).await?;
    assert_eq!(scene.store().tokens(), 0, "the store's token was revoked");
    // The read buffer of a connection that is kept alive holds the last answer until the connection ends:
    // here the store ends it, elsewhere 30 s without a request do.
    scene.store().go_dark();
    let pid = scene.node().worker().context("the agent has no worker")?;
    let gone = async {
        while in_memory(pid, CANARY.as_bytes())? > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::io::Result::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .context("the value is still there")??;
    Ok(())
}
