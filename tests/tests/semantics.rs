//! What an application sees; SEMANTICS.md names these tests.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::store::DevStore;
use sotto_tests::files::{self, blocking, cat_as};
use sotto_tests::scene::Scene;

async fn published() -> anyhow::Result<(Scene<DevStore>, Pod, PathBuf)> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"username": "u-1", "password": "p-1"})).await?;
    scene.write("payments/checkout/tls", json!({"certificate": "CERT", "key": "KEY"})).await?;
    let pod = scene.example_pod();
    let target = scene.publish(&pod).await?;
    Ok((scene, pod, target))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_object_is_a_file_with_its_value() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    let files = files::tree(target).await?;
    assert_eq!(files["db-password"], "p-1");
    assert_eq!(files["tls/server.key"], "KEY");
    assert_eq!(files.len(), 4);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layout_is_that_of_a_kubernetes_volume() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    let at = target.clone();
    let (data, name, nested, mut root) = blocking(move || {
        let names: io::Result<Vec<_>> = std::fs::read_dir(&at)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect();
        Ok((
            std::fs::read_link(at.join("..data"))?,
            std::fs::read_link(at.join("db-password"))?,
            std::fs::read_link(at.join("tls"))?,
            names?,
        ))
    })
    .await?;
    root.sort();
    assert_eq!(data, Path::new("..1"));
    assert_eq!(name, Path::new("..data/db-password"));
    assert_eq!(nested, Path::new("..data/tls"));
    assert_eq!(root, ["..1", "..data", "db-password", "db-username", "tls"]);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stat_readdir_read_and_mmap_agree() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    blocking(move || {
        for entry in std::fs::read_dir(target.join("..data/tls"))? {
            let entry = entry?;
            let metadata = std::fs::symlink_metadata(entry.path())?;
            assert_eq!(entry.ino(), metadata.ino());
            assert!(entry.file_type()?.is_file() && metadata.is_file());
            let content = std::fs::read(entry.path())?;
            assert_eq!(content.len() as u64, metadata.len());
            assert_eq!(metadata.nlink(), 1);
            let file = std::fs::File::open(entry.path())?;
            let mapped = map(&file, content.len())?;
            assert_eq!(mapped, content, "mmap shows what read shows");
        }
        Ok(())
    })
    .await?;
    scene.stop(&pod).await
}

#[expect(unsafe_code, reason = "mmap")]
fn map(file: &std::fs::File, len: usize) -> io::Result<Vec<u8>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    // SAFETY: a fresh private mapping, read within its length and unmapped before anybody else sees it.
    unsafe {
        let start = mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0)?;
        let copy = std::slice::from_raw_parts(start.cast::<u8>(), len).to_vec();
        munmap(start, len)?;
        Ok(copy)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_is_refused() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    blocking(move || {
        let file = target.join("db-password");
        let writes: [(&str, io::Result<()>); 8] = [
            ("open", std::fs::OpenOptions::new().write(true).open(&file).map(drop)),
            ("create", std::fs::File::create(target.join("new")).map(drop)),
            ("mkdir", std::fs::create_dir(target.join("new"))),
            ("unlink", std::fs::remove_file(&file)),
            ("rename", std::fs::rename(&file, target.join("x"))),
            ("symlink", std::os::unix::fs::symlink("x", target.join("y"))),
            ("chmod", std::fs::set_permissions(&file, PermissionsExt::from_mode(0o777))),
            (
                "truncate",
                std::fs::OpenOptions::new().write(true).truncate(true).open(&file).map(drop),
            ),
        ];
        for (name, result) in writes {
            let error = result.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{name}: {error}");
        }
        Ok(())
    })
    .await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_belong_to_the_fs_group() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    assert_eq!(pod.fs_group, Some(2000), "the example says so");
    assert_eq!(files::mode_and_owner(target.join("db-password")).await?, (0o440, 0, 2000));
    assert_eq!(files::mode_and_owner(target.join("tls/server.key")).await?, (0o440, 0, 2000));
    let mut open = scene.example_pod().sibling("open-0", "checkout");
    open.fs_group = None;
    let target = scene.publish(&open).await?;
    assert_eq!(files::mode_and_owner(target.join("db-password")).await?, (0o444, 0, 0));
    assert_eq!(files::mode_and_owner(target.join("tls/server.key")).await?, (0o440, 0, 0));
    scene.stop(&open).await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_group_is_refused() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    if sotto_dev::node::is_mapped(2000) {
        let shown = scene.node().show_in_container(&target, "mnt/container")?;
        let member = cat_as(&shown.join("db-password"), 1000, 2000).await?;
        assert_eq!(String::from_utf8_lossy(&member.stdout), "p-1", "{member:?}");
        let stranger = cat_as(&shown.join("db-password"), 1000, 1000).await?;
        assert!(!stranger.status.success());
        assert!(String::from_utf8_lossy(&stranger.stderr).contains("Permission denied"));
        scene.node().end_container(&shown)?;
    } else {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root, with every uid");
    }
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_open_is_audited() -> anyhow::Result<()> {
    let (scene, pod, target) = published().await?;
    let path = target.join("tls/server.key");
    blocking(move || {
        for _ in 0..3 {
            let mut content = String::new();
            std::fs::OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_CLOEXEC)
                .open(&path)?
                .read_to_string(&mut content)?;
        }
        Ok(())
    })
    .await?;
    let opens = |records: &[serde_json::Value]| {
        let ours = |record: &&serde_json::Value| {
            record["action"] == "open" && record["object"] == "tls/server.key"
        };
        records.iter().filter(ours).count() == 3
    };
    let records = scene.node().audited("three opens", Duration::from_secs(10), opens).await?;
    let open = records.iter().find(|record| record["action"] == "open").expect("an open");
    assert_eq!(open["pod_uid"], pod.uid.as_str());
    assert_eq!(open["decision"], "allowed");
    assert_eq!(open["generation"], 1);
    assert_eq!(open["uid"], rustix::process::getuid().as_raw());
    assert_eq!(open["pid"].as_u64().map(|pid| pid > 0), Some(true));
    scene.stop(&pod).await
}
