//! The agent's whole container killed between a change in the store and the turn to it: the next agent has none of
//! the values that the mount shows, and must not show new ones under old numbers.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::ReadFlags;
use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::store::DevStore;
use sotto_dev::test_store::TestStore;
use sotto_tests::files::{blocking, read};
use sotto_tests::inotify::{Event, Watch};
use sotto_tests::scene::Scene;
use sotto_tests::served::{NAMES, Served, value};

const SOON: Duration = Duration::from_secs(20);
/// Nothing but the agent's end makes the volume look at its store.
const NEVER: [(&str, &str); 1] = [("sotto.dev/refresh", "1h")];
const OF_TWO_KINDS: &str = "\
    - {objectName: a, secretPath: kv/payments/checkout/plain, secretKey: a}\n\
    - {objectName: b, secretPath: secret/data/payments/checkout/pair, secretKey: b}";

fn renamed(event: &Event) -> bool {
    event.0.contains(ReadFlags::MOVED_TO) && event.1 == "..data"
}

async fn heard(watch: Watch) -> anyhow::Result<()> {
    blocking(move || watch.until(SOON, renamed).map(drop)).await
}

/// A volume whose agent is about to die: its generation as an application has resolved it, a file of it that is
/// open and was never read, and a watch.
struct Before {
    generation: PathBuf,
    open: File,
    inode: u64,
    watch: Watch,
}

impl Before {
    fn of(target: &Path) -> std::io::Result<Self> {
        let generation = target.join(std::fs::read_link(target.join("..data"))?);
        let open = File::open(generation.join(NAMES[1]))?;
        let inode = std::fs::metadata(generation.join(NAMES[0]))?.ino();
        Ok(Self { generation, open, inode, watch: Watch::on(target)? })
    }
}

async fn replace_agent<S: TestStore>(scene: &mut Scene<S>) -> anyhow::Result<()> {
    scene.node().agent().kill().await?;
    scene.node_mut().restart_agent().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_stays_whole_and_is_turned_from_as_ever() -> anyhow::Result<()> {
    let mut served = Served::start(Scene::openbao().await?, 1, &NEVER).await?;
    let (target, first) = (served.targets[0].clone(), served.current());
    let mut before = Before::of(&target)?;
    assert!(read(before.generation.join(NAMES[0])).await? == first);
    let next = served.write().await?;
    replace_agent(&mut served.scene).await?;
    // Until the turn, and for its grace time: the other file of the directory that the first was read in.
    let second = read(before.generation.join(NAMES[1])).await?;
    assert!(second == first, "it is {}...", &second[..9]);
    served.all_show(&next).await?;
    let second = read(before.generation.join(NAMES[1])).await?;
    assert!(second == first, "after the turn it is {}...", &second[..9]);
    heard(before.watch).await?;
    let open = blocking(move || {
        let mut text = String::new();
        before.open.read_to_string(&mut text).map(|_| text)
    });
    assert!(open.await? == first, "an open file keeps its generation");
    assert_eq!(std::fs::read_link(target.join("..data"))?, Path::new("..2"));
    served.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_where_nothing_has_changed() -> anyhow::Result<()> {
    let (mut scene, pod, target) = of_two_kinds().await?;
    let before = Before::of(&target)?;
    for _ in 0..2 {
        replace_agent(&mut scene).await?;
        assert_eq!(read(target.join("a")).await?, "plain-1");
        assert_eq!(std::fs::read_link(target.join("..data"))?, Path::new("..1"));
        assert_eq!(std::fs::metadata(target.join("a"))?.ino(), before.inode);
    }
    assert!(before.watch.seen()?.is_empty(), "nothing turned");
    scene.stop(&pod).await
}

/// One file of KV version 1, of which no earlier version can be had.
async fn of_two_kinds() -> anyhow::Result<(Scene<DevStore>, Pod, PathBuf)> {
    let scene = Scene::embedded().await?;
    scene.store().write_v1("payments/checkout/plain", json!({"a": "plain-1"})).await?;
    scene.write("payments/checkout/pair", json!({"b": value(1)})).await?;
    scene.class("two", OF_TWO_KINDS)?;
    let mut pod = scene.pod("checkout-0", "checkout", "two");
    let (key, never) = NEVER[0];
    pod.volumes[0].attributes.insert(key.to_owned(), never.to_owned());
    let target = scene.publish(&pod).await?;
    Ok((scene, pod, target))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_any_more_is_refused_and_never_mixed() -> anyhow::Result<()> {
    let (mut scene, pod, target) = of_two_kinds().await?;
    let before = Before::of(&target)?;
    assert_eq!(read(before.generation.join("a")).await?, "plain-1");
    scene.store().write_v1("payments/checkout/plain", json!({"a": "plain-2"})).await?;
    scene.write("payments/checkout/pair", json!({"b": value(2)})).await?;
    replace_agent(&mut scene).await?;
    assert_eq!(read(target.join("a")).await?, "plain-2", "who asks by the path has the new one");
    assert!(read(target.join("b")).await? == value(2));
    let other = read(before.generation.join("b")).await.unwrap_err();
    assert!(format!("{other:#}").contains("os error"), "{other:#}");
    assert_ne!(std::fs::metadata(target.join("a"))?.ino(), before.inode);
    heard(before.watch).await?;
    scene.stop(&pod).await
}
