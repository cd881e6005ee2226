//! Rotation and revocation in sidecar mode: the same volume as in node mode.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sotto_dev::test_store::TestStore;
use sotto_tests::files::read;
use sotto_tests::inotify::Watch;
use sotto_tests::sidecars::{self, scene, shows};
use sotto_tests::wait::until;

const REFRESH: [(&str, &str); 1] = [("sotto.dev/refresh", "1s")];
const SOON: Duration = Duration::from_secs(20);

fn denied(path: &std::path::Path) -> bool {
    std::fs::read(path).is_err_and(|error| error.raw_os_error() == Some(13))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_value_is_seen_and_its_watchers_are_told() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    let watch = Watch::on(&secrets)?;
    let open = File::open(secrets.join("password"))?;
    sidecars::write(&scene, "p-2").await?;
    let events =
        tokio::task::spawn_blocking(move || watch.until(SOON, |event| event.1 == "..data"));
    events.await??;
    shows(&secrets.join("password"), "p-2").await?;
    let mut old = [0; 3];
    open.read_exact_at(&mut old, 0)?;
    assert_eq!(&old, b"p-1", "an open file keeps its generation");
    pod.end(scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_removed_closes_the_file_and_heals_by_itself() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    let file = secrets.join("password");
    let open = File::open(&file)?;
    scene.store().remove_policy("pod").await?;
    until("the refusal", || denied(&file)).await?;
    // Refused first, then invalidated: what the kernel has of it goes a moment later.
    let is_denied = |error: std::io::Error| error.raw_os_error() == Some(13);
    let read_on = || open.read_at(&mut [0; 3], 0).is_err_and(is_denied);
    until("the refusal of open files", read_on).await?;
    scene.store().restore_policy().await?;
    until("the values", || std::fs::read(&file).is_ok_and(|it| it == b"p-1")).await?;
    pod.end(scene.node()).await?;
    Ok(())
}

/// The class is edited in the cluster: sotto-node has it, and the sidecar is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_class_is_followed() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    scene.class(
        sidecars::CLASS,
        "- {objectName: password, secretPath: secret/data/payments/checkout/db, secretKey: password}\n\
         - {objectName: name, secretPath: secret/data/payments/checkout/db, secretKey: user}",
    )?;
    let name = secrets.join("name");
    until("the new object", || name.exists()).await?;
    assert_eq!(read(name).await?, "u-1");
    until("the old one's end", || !secrets.join("tls/user").exists()).await?;
    pod.end(scene.node()).await?;
    Ok(())
}

/// A certificate that is replaced in its volume is used for the next connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_token_and_client_certificate_are_used_without_a_restart() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    let running = pod.running().map(sotto_dev::process::Running::pid);
    pod.renew_certificate(&scene.authority().client("another.payments.pod")?)?;
    scene.kubelet().mint_with(std::sync::Arc::new(|spec| spec));
    pod.renew_token(scene.node())?;
    // Its login is gone, so it has to log in anew.
    scene.store().revoke_tokens().await?;
    sidecars::write(&scene, "p-2").await?;
    shows(&secrets.join("password"), "p-2").await?;
    assert_eq!(pod.running().map(sotto_dev::process::Running::pid), running);
    pod.end(scene.node()).await?;
    Ok(())
}
