//! A volume follows its store: new values are seen, refusals close, outages are bridged.

use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::test_store::TestStore;
use sotto_tests::files::{self, blocking};
use sotto_tests::scene::Scene;

const SOON: Duration = Duration::from_secs(20);
const OBJECTS: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";

sotto_tests::on_both_stores! {
    a_new_value_is_seen_and_its_watchers_are_told,
    a_policy_that_is_removed_closes_the_file_and_heals_by_itself,
    a_secret_that_is_deleted_closes_the_file,
    an_agent_that_restarts_after_a_rotation_serves_the_new_value,
}

/// A pod whose volume is refreshed every second.
async fn refreshed<S: TestStore>(scene: &Scene<S>) -> anyhow::Result<(Pod, PathBuf)> {
    scene.write("payments/checkout/db", json!({"password": "one"})).await?;
    scene.class("db", OBJECTS)?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let target = scene.publish(&pod).await?;
    assert_eq!(files::read(target.join("p")).await?, "one");
    Ok((pod, target))
}

/// Waits until a read of the file gives what is wanted.
async fn until(
    path: &Path,
    wanted: impl Fn(&std::io::Result<String>) -> bool,
) -> anyhow::Result<()> {
    let seen = async {
        loop {
            let at = path.to_owned();
            let read = blocking(move || Ok(std::fs::read_to_string(at))).await?;
            if wanted(&read) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.context("it was never seen")?
}

fn is_denied(read: &std::io::Result<String>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

async fn a_new_value_is_seen_and_its_watchers_are_told<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    let (pod, target) = refreshed(&scene).await?;
    let watch = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?;
    let flags = rustix::fs::inotify::WatchFlags::MOVED_TO;
    rustix::fs::inotify::add_watch(&watch, &target, flags)?;
    scene.write("payments/checkout/db", json!({"password": "two"})).await?;
    until(&target.join("p"), |read| read.as_ref().is_ok_and(|value| value == "two")).await?;
    let name = blocking(move || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
        let mut events = rustix::fs::inotify::Reader::new(&watch, &mut buffer);
        Ok(events.next()?.file_name().map(|name| name.to_string_lossy().into_owned()))
    })
    .await?;
    assert_eq!(name.as_deref(), Some("..data"), "what AtomicWriter's rename gives on tmpfs");
    let at = target.clone();
    let link = blocking(move || std::fs::read_link(at.join("..data"))).await?;
    assert_eq!(link, Path::new("..2"));
    scene.stop(&pod).await
}

async fn a_policy_that_is_removed_closes_the_file_and_heals_by_itself<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    let (pod, target) = refreshed(&scene).await?;
    let path = target.join("p");
    let at = path.clone();
    let open = blocking(move || std::fs::File::open(at)).await?;
    scene.store().remove_policy("pod").await?;
    until(&path, is_denied).await?;
    // Refused first, then the kernel forgets: an open file follows in the same turn, a moment later.
    let open = std::sync::Arc::new(open);
    let closed = async {
        loop {
            let open = std::sync::Arc::clone(&open);
            let read = blocking(move || Ok(open.read_at(&mut [0; 8], 0))).await?;
            match read {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return anyhow::Ok(error),
            }
        }
    };
    let error = tokio::time::timeout(SOON, closed).await.context("an open file goes on")??;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    scene.store().restore_policy().await?;
    until(&path, |read| read.as_ref().is_ok_and(|value| value == "one")).await?;
    scene.stop(&pod).await
}

async fn a_secret_that_is_deleted_closes_the_file<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    let (pod, target) = refreshed(&scene).await?;
    scene.store().delete("payments/checkout/db", &[1]).await?;
    until(&target.join("p"), is_denied).await?;
    scene.write("payments/checkout/db", json!({"password": "back"})).await?;
    until(&target.join("p"), |read| read.as_ref().is_ok_and(|value| value == "back")).await?;
    scene.stop(&pod).await
}

async fn an_agent_that_restarts_after_a_rotation_serves_the_new_value<S: TestStore>(
    mut scene: Scene<S>,
) -> anyhow::Result<()> {
    let (pod, target) = refreshed(&scene).await?;
    scene.write("payments/checkout/db", json!({"password": "two"})).await?;
    until(&target.join("p"), |read| read.as_ref().is_ok_and(|value| value == "two")).await?;
    scene.node().agent().kill().await?;
    scene.write("payments/checkout/db", json!({"password": "three"})).await?;
    scene.node_mut().restart_agent().await?;
    until(&target.join("p"), |read| read.as_ref().is_ok_and(|value| value == "three")).await?;
    scene.write("payments/checkout/db", json!({"password": "four"})).await?;
    until(&target.join("p"), |read| read.as_ref().is_ok_and(|value| value == "four")).await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_bridged_until_the_value_is_too_old() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "one"})).await?;
    scene.class("db", OBJECTS)?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    attributes.insert("sotto.dev/max-stale".to_owned(), "4s".to_owned());
    let target = scene.publish(&pod).await?;
    let status = target.join("..sotto/status.json");
    scene.store().go_dark();
    until(&status, |read| read.as_ref().is_ok_and(|status| status.contains("\"stale\""))).await?;
    assert_eq!(files::read(target.join("p")).await?, "one", "the last good value");
    until(&target.join("p"), is_denied).await?;
    until(&status, |read| read.as_ref().is_ok_and(|status| status.contains("\"closed\""))).await?;
    scene.store().come_back().await?;
    until(&target.join("p"), |read| read.as_ref().is_ok_and(|value| value == "one")).await?;
    until(&status, |read| read.as_ref().is_ok_and(|status| status.contains("\"fresh\""))).await?;
    scene.stop(&pod).await
}

/// A certificate is not read again at a refresh; once wiped it must be, or its file would come back empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_wiped_is_read_again_before_it_is_readable_again() -> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    scene.store().enable_pki().await?;
    scene.write("payments/checkout/db", json!({"password": "one"})).await?;
    let request = "secretPath: pki/issue/payments-checkout, method: PUT, \
                   secretArgs: {common_name: checkout.payments.invalid, ttl: 24h}";
    scene.class(
        "mixed",
        &format!("{OBJECTS}\n- {{objectName: tls.crt, {request}, secretKey: certificate}}"),
    )?;
    let mut pod = scene.pod("checkout-0", "checkout", "mixed");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    attributes.insert("sotto.dev/max-stale".to_owned(), "3s".to_owned());
    let target = scene.publish(&pod).await?;
    let certificate = target.join("tls.crt");
    assert!(files::read(certificate.clone()).await?.starts_with("-----BEGIN CERTIFICATE"));
    scene.store().process().signal(rustix::process::Signal::STOP);
    until(&certificate, is_denied).await?;
    scene.store().process().signal(rustix::process::Signal::CONT);
    until(&certificate, Result::is_ok).await?;
    let again = files::read(certificate).await?;
    assert!(again.starts_with("-----BEGIN CERTIFICATE"), "{} bytes", again.len());
    assert_eq!(files::read(target.join("p")).await?, "one");
    scene.stop(&pod).await
}
