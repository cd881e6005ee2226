//! The kit plays `facts/kubelet-csi.md` against sotto-csi and sotto-node: when kubelet calls, what it
//! sends, what it makes and removes, what it does after an error, and what it does after its own restart.

#[path = "kubelet/cadence.rs"]
mod cadence;
#[path = "kubelet/directories.rs"]
mod directories;
#[path = "kubelet/failures.rs"]
mod failures;
#[path = "kubelet/registration.rs"]
mod registration;
#[path = "kubelet/tokens.rs"]
mod tokens;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::store::DevStore;
use sotto_tests::scene::Scene;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);
const OBJECTS: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";

/// A scene with the secret `p-1` in the class `db`, and a pod for it.
async fn scene() -> anyhow::Result<(Scene<DevStore>, Pod)> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1"})).await?;
    scene.class("db", OBJECTS)?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    Ok((scene, pod))
}

/// Names of the volumes in the driver's journal.
fn journal(scene: &Scene<DevStore>) -> anyhow::Result<Vec<String>> {
    names(&scene.node().path("run/volumes"))
}

fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        anyhow::Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    let mut names = entries.map(name).collect::<anyhow::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
