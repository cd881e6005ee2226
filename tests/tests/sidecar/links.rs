//! Symbolic links planted wherever a pod can write, and wherever it may try to.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sotto_tests::files::{blocking, read};
use sotto_tests::served::is_gone;
use sotto_tests::sidecars::{PATIENCE, scene};

/// Where a link would lead whoever follows it.
const BAIT: &str = "bait";

/// What stands at the end of every planted link: a directory that nothing may be written to or removed from.
fn bait(directory: &Path) -> std::io::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let content = std::fs::read_to_string(&path)?;
        files.push((path, content));
    }
    files.sort();
    Ok(files)
}

/// Names that the driver, the sidecar or kubelet use somewhere.
const NAMES: [&str; 8] = [
    "handoff.sock",
    "handoff",
    "mount",
    "token",
    "..data",
    "..data_tmp",
    "sotto-secrets",
    "node.sock",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_volume_takes_a_link_a_name_or_a_removal_from_root() -> anyhow::Result<()> {
    let scene = scene().await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    let places = [secrets.clone(), pod.handoff_path()];
    blocking(move || {
        for place in places {
            for name in NAMES {
                let planted = symlink("/etc/passwd", place.join(format!("x-{name}")));
                assert_eq!(planted.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
            }
            let first = std::fs::read_dir(&place)?.next().unwrap()?.path();
            for result in [
                std::fs::remove_file(&first),
                std::fs::rename(&first, place.join("away")),
                std::fs::create_dir(place.join("new")),
                std::fs::write(place.join("file"), "x"),
            ] {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
            }
        }
        Ok(())
    })
    .await?;
    pod.end(scene.node()).await?;
    Ok(())
}

/// An emptyDir of the pod lies beside its CSI volumes. Links in it, to the host and to the driver's own places, under
/// every name that means something, change nothing at start, rotation, restart and end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_in_the_pods_own_volumes_have_no_effect() -> anyhow::Result<()> {
    let mut scene = scene().await?;
    let mut pod = scene.injected("checkout-0", &[("sotto.dev/refresh", "1s")]).await?;
    let baited = scene.node().path("mnt").join(BAIT);
    std::fs::create_dir(&baited)?;
    for name in NAMES {
        std::fs::write(baited.join(name), name)?;
    }
    let before = bait(&baited)?;
    let volumes = scene.node().path("kubelet/pods").join(&pod.pod.uid).join("volumes");
    let writable = volumes.join("kubernetes.io~empty-dir/scratch");
    std::fs::create_dir_all(writable.join("kubernetes.io~csi"))?;
    let run = scene.node().path("run");
    for (number, name) in NAMES.iter().enumerate() {
        let to = [baited.join(name), run.clone(), PathBuf::from("/"), baited.clone()];
        symlink(&to[number % to.len()], writable.join(name))?;
        symlink(&baited, writable.join("kubernetes.io~csi").join(name))?;
    }

    scene.publish_injected(&pod).await?;
    pod.start_sidecar(scene.node()).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    let secrets = pod.show_secrets(scene.node())?;
    sotto_tests::sidecars::write(&scene, "p-2").await?;
    sotto_tests::sidecars::shows(&secrets.join("password"), "p-2").await?;
    scene.node_mut().restart_csi().await?;
    assert_eq!(read(secrets.join("password")).await?, "p-2");
    let targets = [pod.secrets()?, pod.handoff()?].map(|it| scene.kubelet().target(&pod.pod, it));
    pod.end(scene.node()).await?;
    for target in targets {
        assert!(is_gone(&target)?);
    }
    assert_eq!(bait(&baited)?, before, "nothing was written, removed or changed");
    assert_eq!(std::fs::read_dir(&writable)?.count(), NAMES.len() + 1, "nor here");
    Ok(())
}

/// A publish whose target leads through a link, as a pod that could write into its own directory would plant it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_the_way_of_a_target_is_refused_for_both_volumes() -> anyhow::Result<()> {
    let scene = scene().await?;
    let baited = scene.node().path("mnt").join(BAIT);
    std::fs::create_dir(&baited)?;
    for which in ["sotto-secrets", "sotto-handoff"] {
        let pod = scene.injected("checkout-0", &[]).await?;
        let volume = pod.pod.volume(which).expect("it was injected");
        let parent = scene.kubelet().target(&pod.pod, volume);
        let parent = parent.parent().expect("a target has a parent");
        std::fs::create_dir_all(parent.parent().expect("and that has one"))?;
        symlink(&baited, parent)?;
        let request = scene.kubelet().request(&pod.pod, volume);
        let refused = scene.kubelet().send_for(volume, request).await;
        assert!(refused.is_err(), "{which} was mounted through a link");
        assert_eq!(std::fs::read_dir(&baited)?.count(), 0);
        std::fs::remove_file(parent)?;
    }
    Ok(())
}
