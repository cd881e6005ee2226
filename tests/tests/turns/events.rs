//! inotify: what a turn shows to watchers, beside what kubelet's AtomicWriter shows them on a tmpfs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::inotify::ReadFlags;
use sotto_tests::files::blocking;
use sotto_tests::inotify::{Event, Watch};
use sotto_tests::scene::Scene;

use super::{AFTER_GRACE, published, turn};

/// What AtomicWriter does, in the directory's own words, with the names that a volume of ours has.
fn ordinary_turn(directory: &Path) -> io::Result<[Vec<Event>; 2]> {
    let path = |name: &str| directory.join(name);
    let write = |generation: &str, value: &str| {
        fs::create_dir(path(generation))?;
        fs::write(path(generation).join("p"), value)
    };
    write("..1", "one")?;
    symlink("..1", path("..data"))?;
    symlink("..data/p", path("p"))?;
    let watches = [Watch::on(directory)?, Watch::on(&path("p"))?];
    write("..2", "two")?;
    symlink("..2", path("..data_tmp"))?;
    fs::rename(path("..data_tmp"), path("..data"))?;
    fs::remove_file(path("..1/p"))?;
    fs::remove_dir(path("..1"))?;
    let [directory, file] = watches;
    Ok([directory.seen()?, file.seen()?])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_what_an_atomic_writer_shows_them_on_a_tmpfs() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let ordinary = scene.node().path("mnt/ordinary");
    let [directory, file] = blocking(move || {
        fs::create_dir(&ordinary)?;
        ordinary_turn(&ordinary)
    })
    .await?;
    assert!(directory.contains(&(ReadFlags::MOVED_TO, "..data".to_owned())), "{directory:?}");
    assert!(file.iter().any(|(what, _)| what.contains(ReadFlags::DELETE_SELF)), "{file:?}");

    let (pod, target) = published(&scene, "one").await?;
    let at = target.clone();
    let watches = blocking(move || Ok([Watch::on(&at)?, Watch::on(&at.join("p"))?])).await?;
    turn(&scene, &pod, "two").await?;
    let seen = tokio::task::spawn_blocking(move || {
        let last = (ReadFlags::DELETE | ReadFlags::ISDIR, "..1".to_owned());
        let seen_directory = watches[0].until(AFTER_GRACE, |event| *event == last)?;
        io::Result::Ok([seen_directory, watches[1].seen()?])
    });
    assert_eq!(seen.await??, [directory, file]);
    scene.stop(&pod).await
}
