//! Where sotto-csi and sotto-node were built: beside this executable.

use std::path::{Path, PathBuf};

/// The binaries are not there.
#[derive(Debug, thiserror::Error)]
#[error("sotto-csi and sotto-node are not beside {0}: run `make build` first")]
pub struct NotBuilt(PathBuf);

/// The directory of the binaries.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// Holds `sotto-csi` and `sotto-node`.
    pub directory: PathBuf,
}

impl Binaries {
    /// Looks in this executable's directory and in its parent (a test runs from `target/debug/deps`).
    ///
    /// # Errors
    /// Neither holds both.
    pub fn find() -> Result<Self, NotBuilt> {
        let this = std::env::current_exe().unwrap_or_default();
        let has_both = |directory: &&Path| {
            ["sotto-csi", "sotto-node"].iter().all(|name| directory.join(name).is_file())
        };
        let directory = this.ancestors().skip(1).take(2).find(has_both);
        directory.map(|it| Self { directory: it.to_owned() }).ok_or(NotBuilt(this.clone()))
    }
}
