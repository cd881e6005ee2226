//! What happens while the pod lives: the store has a new value, and the file and its watchers show it; a policy is
//! withdrawn, and the file is closed, also to who had it open. Then all is as it was.
//!
//! In node mode each is brought on by `sotto-node refresh`, so that nobody waits for the interval; a sidecar asks its
//! store every second here.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::reader::Seen;
use super::report::read;
use super::stage::{SIDECAR_PATIENCE, Stage};
use crate::test_store::TestStore as _;

/// Between two looks at a file.
const POLL: Duration = Duration::from_millis(20);

/// What was seen of it.
#[derive(Debug, Serialize)]
pub(super) struct Live {
    pub(super) change: Change,
    pub(super) withdrawal: Withdrawal,
}

/// A new value in the store.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    /// The file.
    pub(super) name: String,
    pub(super) before: String,
    pub(super) after: String,
    /// What `sotto-node refresh` said.
    pub(super) said: Vec<String>,
    /// What a watcher of the directory was told.
    pub(super) events: Vec<String>,
    /// From the store's new version to the end of the refresh.
    pub(super) milliseconds: u128,
}

/// The policy that lets the pod read is withdrawn, and put back.
#[derive(Debug, Serialize)]
pub(super) struct Withdrawal {
    /// The file.
    pub(super) name: String,
    pub(super) said: Vec<String>,
    /// What the reader's open was answered.
    pub(super) opened: String,
    /// What a read of a file that was open before was answered.
    pub(super) read_on: String,
    /// From the withdrawal to the refusal, which a second read has confirmed.
    pub(super) milliseconds: u128,
    /// What the reader saw once the policy was back.
    pub(super) healed: String,
}

impl Live {
    /// Changes, withdraws and puts back.
    pub(super) async fn show(stage: &Stage, seen: &Seen) -> anyhow::Result<Self> {
        let name = &stage.changing().object_name;
        let change = change(stage, name, seen).await?;
        let withdrawal = withdraw(stage, name).await?;
        Ok(Self { change, withdrawal })
    }
}

async fn change(stage: &Stage, name: &str, seen: &Seen) -> anyhow::Result<Change> {
    let watch = blocking(stage.secrets.clone(), |directory| {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        inotify::add_watch(&watch, directory, changes)?;
        Ok(watch)
    })
    .await?;
    let begun = Instant::now();
    stage.write_new_values();
    let before = seen.files.iter().find(|file| file.name == name);
    let before = before.map(|file| file.content.clone()).unwrap_or_default();
    let said = refreshed(stage, name, Until::Other(before.clone())).await?;
    let milliseconds = begun.elapsed().as_millis();
    let after = content(stage, name).await?;
    anyhow::ensure!(before != after, "the file {name} did not follow its store: {said:?}");
    Ok(Change { name: name.to_owned(), before, after, said, events: events(&watch)?, milliseconds })
}

async fn withdraw(stage: &Stage, name: &str) -> anyhow::Result<Withdrawal> {
    let open = blocking(stage.secrets.join(name), File::open).await?;
    let begun = Instant::now();
    stage.store.remove_policy(crate::store::POD_POLICY).await?;
    let said = refreshed(stage, name, Until::Denied).await?;
    let milliseconds = begun.elapsed().as_millis();
    let opened = content(stage, name).await?;
    let read_on = tokio::task::spawn_blocking(move || open.read_at(&mut [0; 16], 0)).await?;
    let read_on = match read_on {
        Ok(size) => format!("{size} bytes"),
        Err(error) => error.to_string(),
    };
    stage.store.restore_policy().await?;
    refreshed(stage, name, Until::Allowed).await?;
    let healed = content(stage, name).await?;
    Ok(Withdrawal { name: name.to_owned(), said, opened, read_on, milliseconds, healed })
}

/// What a read of the file is to give.
enum Until {
    /// Something else than this.
    Other(String),
    Denied,
    Allowed,
}

impl Until {
    fn holds(&self, read: &io::Result<String>) -> bool {
        let is_denied =
            read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        match self {
            Self::Other(before) => read.as_ref().is_ok_and(|now| now != before),
            Self::Denied => is_denied,
            Self::Allowed => read.is_ok(),
        }
    }
}

/// Asks sotto-node to ask the store again; what it printed. A sidecar does so by itself: waits until a read of the
/// file is as it should be.
async fn refreshed(stage: &Stage, name: &str, until: Until) -> anyhow::Result<Vec<String>> {
    let Some(injected) = &stage.injected else {
        return Ok(stage.node.refresh(&stage.pod).await?.1);
    };
    let watching = blocking(stage.secrets.join(name), move |file| {
        let begun = Instant::now();
        while !until.holds(&std::fs::read_to_string(&file)) {
            if begun.elapsed() > SIDECAR_PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::park_timeout(POLL);
        }
        Ok(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
    });
    // Its reads are no part of the story.
    let thread = watching.await.with_context(|| {
        let said = injected.output();
        let lines = said.lines().filter(|line| !line.contains("\"action\":\"open\""));
        let lines: Vec<_> = lines.collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        let driver = stage.node.csi().log().tail();
        format!("the sidecar didn't follow its store; it said:\n{last}\nand sotto-csi:\n{driver}")
    })?;
    stage.looked(thread);
    Ok(Vec::new())
}

/// What the container's user reads in a file.
async fn content(stage: &Stage, name: &str) -> anyhow::Result<String> {
    let seen = read(stage, [name].into_iter()).await?;
    let file = seen.files.into_iter().next().context("the reader read nothing")?;
    Ok(file.content)
}

/// A file system must not hold up the runtime.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(move || work(path)).await??)
}

/// Everything that the watcher was told, as `inotifywait` would print it.
fn events(watch: &OwnedFd) -> anyhow::Result<Vec<String>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(watch, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().unwrap_or_default().to_string_lossy();
                events.push(format!("{} {name}", words(event.events())));
            }
            Err(Errno::AGAIN) => return Ok(events),
            Err(error) => return Err(error.into()),
        }
    }
}

fn words(what: ReadFlags) -> String {
    let names: Vec<_> = what.iter_names().map(|(name, _)| name).collect();
    names.join(",")
}
