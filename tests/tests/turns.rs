//! What applications notice when a volume turns to new values, and when it loses them: with the real processes
//! over a real mount.

#[path = "turns/demand.rs"]
mod demand;
#[path = "turns/events.rs"]
mod events;
#[path = "turns/readers.rs"]
mod readers;
#[path = "turns/revocation.rs"]
mod revocation;
#[path = "turns/subpath.rs"]
mod subpath;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::test_store::TestStore;
use sotto_tests::scene::Scene;

/// Longer than an old generation stays (30 s), and what is done then.
const AFTER_GRACE: Duration = Duration::from_secs(45);
const SECRET: &str = "payments/checkout/db";
const OBJECTS: &str = "\
    - {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}\n\
    - {objectName: tls/key, secretPath: secret/data/payments/checkout/db, secretKey: password}";

/// A published pod whose files have this value. It is refreshed when somebody asks for it.
async fn published<S: TestStore>(scene: &Scene<S>, value: &str) -> anyhow::Result<(Pod, PathBuf)> {
    scene.write(SECRET, json!({"password": value})).await?;
    scene.class("db", OBJECTS)?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1h".to_owned());
    let target = scene.publish(&pod).await?;
    Ok((pod, target))
}

/// Writes a value, and has the volume turn to it.
async fn turn<S: TestStore>(scene: &Scene<S>, pod: &Pod, value: &str) -> anyhow::Result<()> {
    scene.write(SECRET, json!({"password": value})).await?;
    let (is_good, lines) = scene.node().refresh(pod).await?;
    let changed = is_good && lines.last().is_some_and(|line| line.ends_with(" changed"));
    changed.then_some(()).with_context(|| format!("it did not turn: {lines:?}"))
}
