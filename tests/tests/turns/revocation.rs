//! A policy is withdrawn while an application has a file open and mapped: it loses both, and the agent's
//! memory loses the value.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use serde_json::json;
use sotto_dev::store::DevStore;
use sotto_dev::test_store::TestStore;
use sotto_tests::files::blocking;
use sotto_tests::memory::{in_memory, secret_files, secret_mappings};
use sotto_tests::scene::{Scene, StoreSettings};

use super::{OBJECTS, SECRET};

const CANARY: &str = "canary-secret-5d20ab";
const INTERVAL: Duration = Duration::from_secs(1);
/// From the first refusal to the second.
const CONFIRMED_AFTER: Duration = Duration::from_secs(1);
/// Requests, invalidations, and this test's own steps.
const WORK: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(20);
/// More than a mapping of anything but the value needs.
const LARGE: u64 = 64 << 10;
const ARGUMENT: &str = "SOTTO_TEST_MAPPED_FILE";
const READY: &str = "it is mapped";

/// A process that maps the file, says so, and looks at it again when told.
struct Mapping(Child);

impl Mapping {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let part = "revocation::look_at_a_mapping_twice";
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", part, "--ignored", "--nocapture", "--test-threads=1"])
            .env(ARGUMENT, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("its output")?;
        let mapping = Self(child);
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        anyhow::ensure!(lines.any(|line| line.ends_with(READY)), "it ended too early");
        Ok(mapping)
    }

    /// How it ends when it looks again.
    fn look(mut self) -> std::io::Result<Option<i32>> {
        drop(self.0.stdin.take());
        Ok(self.0.wait()?.signal())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "a part that other tests start"]
#[expect(unsafe_code, reason = "mmap")]
fn look_at_a_mapping_twice() {
    let file = File::open(std::env::var(ARGUMENT).expect("a file")).expect("it can be opened");
    let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
    // SAFETY: a fresh read-only mapping, never unmapped; the second access may end the process, which is what
    // is tested.
    unsafe {
        let start = mmap(std::ptr::null_mut(), 4096, access, flags, &file, 0).expect("mapped");
        let start = start.cast::<u8>();
        assert_eq!(start.read_volatile(), CANARY.as_bytes()[0]);
        writeln!(std::io::stdout(), "{READY}").expect("somebody reads");
        std::io::stdin().read_to_end(&mut Vec::new()).expect("somebody writes");
        start.read_volatile();
    }
}

fn read(file: &File) -> std::io::Result<usize> {
    file.read_at(&mut [0; 8], 0)
}

/// Whether the value is in the worker's memory: seen, or hidden in a mapping that is as large.
fn has_value(worker: u32, supervisor: u32, is_seen: bool) -> std::io::Result<bool> {
    if is_seen {
        return Ok(in_memory(worker, CANARY.as_bytes())?
            + in_memory(supervisor, CANARY.as_bytes())?
            > 0);
    }
    let files = [secret_files(worker)?, secret_files(supervisor)?];
    let mut sizes = secret_mappings(worker)?;
    sizes.extend(files.iter().flat_map(|files| files.values()));
    Ok(sizes.iter().any(|bytes| *bytes >= LARGE))
}

async fn lost_within_an_interval_and_a_second(
    scene: Scene<DevStore>,
    is_seen: bool,
) -> anyhow::Result<()> {
    let value = format!("{CANARY}{}", "x".repeat(usize::try_from(LARGE)?));
    scene.write(SECRET, json!({"password": value})).await?;
    scene.class("db", OBJECTS)?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let path = scene.publish(&pod).await?.join("p");
    let at = path.clone();
    let open = blocking(move || File::open(at)).await?;
    let at = path.clone();
    let mapping = tokio::task::spawn_blocking(move || Mapping::of(&at)).await??;
    let supervisor = scene.node().agent().pid();
    let worker = scene.node().worker().context("the agent has no worker")?;
    assert!(has_value(worker, supervisor, is_seen)?, "the search finds what is there");

    scene.store().remove_policy("pod").await?;
    let began = Instant::now();
    let at = path.clone();
    let lost = tokio::task::spawn_blocking(move || {
        while began.elapsed() < SOON && (File::open(&at).is_ok() || read(&open).is_ok()) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        (began.elapsed(), read(&open))
    });
    let (took, read_on) = lost.await?;
    assert!(took < INTERVAL + CONFIRMED_AFTER + WORK, "it took {took:?}");
    assert_eq!(read_on.expect_err("an open file").kind(), ErrorKind::PermissionDenied);
    assert_eq!(blocking(move || mapping.look()).await?, Some(libc::SIGBUS), "a mapping");

    // The read buffer of a connection that is kept alive holds old answers until the connection ends.
    scene.store().go_dark();
    let wiped = async {
        while has_value(worker, supervisor, is_seen)? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, wiped).await.context("the value is still in memory")??;
    // Nobody can be logged out of any more; the pod goes all the same.
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_and_a_mapping_lose_a_value_in_memfd_secret() -> anyhow::Result<()> {
    lost_within_an_interval_and_a_second(Scene::embedded().await?, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_and_a_mapping_lose_a_value_in_locked_memory() -> anyhow::Result<()> {
    let settings = StoreSettings {
        agent_arguments: vec!["--no-memfd-secret".to_owned()],
        ..StoreSettings::method("jwt")
    };
    lost_within_an_interval_and_a_second(Scene::embedded_with(settings).await?, true).await
}
