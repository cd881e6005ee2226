//! The machine: who runs where, what of the binaries is in memory, and what else it is doing.
//!
//! Store and bench share one processor; Sotto, its peers and whoever reads their files share another, where there
//! are two. So neither side runs beside what it asks, and a reader pays for its server.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_tests::usage;
use tempfile::TempDir;

/// What is started of ours.
const OURS: [&str; 4] = ["sotto-csi", "sotto-node", "sotto-agent", "sotto-webhook"];

/// The processors of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    /// Of the store and the bench; `None` where there is one only.
    pub(crate) store: Option<usize>,
    /// Of both sides that are compared.
    pub(crate) sides: Option<usize>,
}

impl Processors {
    pub(crate) fn of_this_machine() -> anyhow::Result<Self> {
        Ok(match usage::processors()?[..] {
            [first, second, ..] => Self { store: Some(first), sides: Some(second) },
            _ => Self { store: None, sides: None },
        })
    }

    /// Confines these processes, and all below them, to the sides' processor.
    pub(crate) fn pin_side(&self, roots: &[u32]) -> anyhow::Result<()> {
        self.sides.map_or(Ok(()), |at| usage::pin(roots, &[at]))
    }

    /// Runs blocking work on the sides' processor, on a thread of its own, and waits for it.
    pub(crate) async fn on_side<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let at = self.sides;
        let (done, result) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("side".to_owned()).spawn(move || {
            let pinned = at.map_or(Ok(()), usage::pin_this_thread);
            // Nobody waits any more: nobody wants the result.
            let _ = done.send(pinned.map_err(Into::into).and_then(|()| work()));
        })?;
        result.await?
    }

    /// As [`Self::on_side`], for what awaits: on a runtime of that one thread.
    pub(crate) async fn awaited_on_side<
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    >(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> anyhow::Result<T> {
        self.on_side(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })
        .await
    }

    pub(crate) fn in_words(&self) -> &'static str {
        match self.sides {
            Some(_) => "store and bench on one processor, Sotto, peers and readers on another",
            None => "one processor for all",
        }
    }
}

/// Reads what is started through, ours in some directories and the peers', so that no part of it is missing from the page cache,
/// where a machine that takes cold pages back leaves another part each minute. A start reads nothing from a disk then, and
/// maps what lies around each page that it touches.
pub(crate) fn page_in_binaries(directories: &[&Path]) -> anyhow::Result<()> {
    let ours = directories.iter().flat_map(|directory| OURS.map(|name| directory.join(name)));
    let ours = ours.filter(|path| path.exists());
    for path in ours.chain([Bao::installed_at()]) {
        let read = File::open(&path).and_then(|mut it| io::copy(&mut it, &mut io::sink()));
        read.with_context(|| format!("{} can't be read", path.display()))?;
    }
    Ok(())
}

/// Copies of what is started of ours, for whichever user: processes of two copies share no page of them.
pub(crate) fn copy_of_binaries(directory: &Path) -> anyhow::Result<TempDir> {
    let copy = tempfile::Builder::new().prefix("sotto-binaries-").tempdir()?;
    std::fs::set_permissions(copy.path(), Permissions::from_mode(0o755))?;
    for name in OURS.into_iter().filter(|name| directory.join(name).exists()) {
        let copied = std::fs::copy(directory.join(name), copy.path().join(name));
        copied.with_context(|| format!("{name} can't be copied"))?;
    }
    Ok(copy)
}

/// The load averages; other work on the machine makes the figures noisy.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// What the figures depend on.
pub(crate) fn description() -> Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    json!({
        "kernel": kernel.trim(),
        "processor": model,
        "processors": usage::processors().map(|it| it.len()).unwrap_or_default(),
    })
}
