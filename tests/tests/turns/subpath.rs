//! subPath: kubelet binds the file or the directory that a name led to when the container started.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::ReadFlags;
use sotto_tests::files::{blocking, read};
use sotto_tests::inotify::Watch;
use sotto_tests::scene::Scene;

use super::{AFTER_GRACE, published, turn};

/// What kubelet does with a subPath: it resolves the links, and binds what they lead to.
fn bind(what: &Path, at: &Path) -> std::io::Result<()> {
    let resolved = fs::canonicalize(what)?;
    match fs::metadata(&resolved)?.is_dir() {
        true => fs::create_dir(at)?,
        false => drop(fs::File::create(at)?),
    }
    Ok(rustix::mount::mount_bind(&resolved, at)?)
}

/// Waits for the event by which an application learns of the new content.
async fn modified(watch: Watch) -> anyhow::Result<()> {
    let is_modified = |event: &(ReadFlags, String)| event.0.contains(ReadFlags::MODIFY);
    let wait = move || watch.until(AFTER_GRACE, is_modified).map(drop);
    Ok(tokio::task::spawn_blocking(wait).await??)
}

async fn size(path: PathBuf) -> anyhow::Result<u64> {
    blocking(move || Ok(fs::metadata(path)?.len())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_of_a_file_and_of_a_directory_follow_after_the_grace_time() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let (pod, target) = published(&scene, "one").await?;
    let (file, directory) = (scene.node().path("mnt/password"), scene.node().path("mnt/directory"));
    let in_directory = directory.join("key");
    let (bound_file, bound_key) = (file.clone(), in_directory.clone());
    let watches = blocking(move || {
        bind(&target.join("p"), &bound_file)?;
        bind(&target.join("tls"), &directory)?;
        Ok((Watch::on(&bound_file)?, Watch::on(&bound_key)?))
    })
    .await?;
    assert_eq!(read(file.clone()).await?, "one");

    turn(&scene, &pod, "the second value").await?;
    for path in [&file, &in_directory] {
        assert_eq!(read(path.clone()).await?, "one", "who reads it now sees one value whole");
    }
    modified(watches.0).await?;
    modified(watches.1).await?;
    for path in [&file, &in_directory] {
        assert_eq!(read(path.clone()).await?, "the second value", "{}", path.display());
        assert_eq!(size(path.clone()).await?, 16, "{}", path.display());
    }
    for at in ["mnt/password", "mnt/directory"] {
        scene.node().end_container(&scene.node().path(at))?;
    }
    scene.stop(&pod).await
}
