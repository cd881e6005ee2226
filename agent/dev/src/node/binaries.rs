//! Where sotto-csi and sotto-node were built: beside this executable, or where the environment says.

use std::path::{Path, PathBuf};

/// Names the directory of the binaries, where they were built apart from this executable: a bench measures those of
/// the release profile.
const VARIABLE: &str = "SOTTO_BINARIES";

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
    /// Looks in the directory that the environment names, else in this executable's directory and in its parent (a
    /// test runs from `target/debug/deps`).
    ///
    /// # Errors
    /// None of them holds both.
    pub fn find() -> Result<Self, NotBuilt> {
        let named = std::env::var_os(VARIABLE).map(|it| Path::new(&it).join("binary"));
        let this = named.unwrap_or_else(|| std::env::current_exe().unwrap_or_default());
        let has_both = |directory: &&Path| {
            ["sotto-csi", "sotto-node"].iter().all(|name| directory.join(name).is_file())
        };
        let directory = this.ancestors().skip(1).take(2).find(has_both);
        directory.map(|it| Self { directory: it.to_owned() }).ok_or(NotBuilt(this.clone()))
    }
}
