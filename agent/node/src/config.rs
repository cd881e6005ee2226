//! `sotto-node`'s configuration: one YAML file, read completely before anything starts.
//!
//! Invariant: what exists as [`Config`] can be used: keys are known, values have passed their checks, the
//! files it names were read. Every fault is reported at once, with its path. No key turns a check off; no
//! value is a secret, so messages may repeat them. Called by [`crate::app`] and the `check` subcommand.

mod audit;
mod classes;
mod driver;
mod limits;
mod metrics;
mod refresh;
mod section;
mod sidecar;
mod stores;
mod tokens;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use sotto_core::limits::Limits;
use sotto_core::rotation::RefreshPolicy;
use sotto_store::Stores;

pub use audit::AuditOutput;
pub use classes::ClassesFrom;
pub use driver::Driver;
pub use sidecar::Sidecar;
pub use tokens::Tokens;

use section::Section;

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What the file may hold.
const KEYS: &[&str] = &[
    "stores",
    "defaults",
    "limits",
    "tokens",
    "classes",
    "kubernetes",
    "audit",
    "driver",
    "refresh",
    "metrics",
    "sidecar",
];

/// A configuration that can be used.
pub struct Config {
    /// The stores; their TLS files were read, no connection was opened.
    pub stores: Stores,
    /// How large, and how many.
    pub limits: Limits,
    /// How often stores are asked again, where the pod doesn't say.
    pub refresh: RefreshPolicy,
    /// Whose tokens are believed.
    pub tokens: Tokens,
    /// Where classes come from.
    pub classes: ClassesFrom,
    /// Where audit records go.
    pub audit: AuditOutput,
    /// Where the driver is.
    pub driver: Driver,
    /// Where scrapes are answered, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// What the sidecar of an injected pod may be.
    pub sidecar: Sidecar,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, e.g. `stores[0].address`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Fault {
    fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// All mistakes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// Whether what is only for development is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As in a cluster.
    Production,
    /// `--development`: an issuer in `.invalid` is believed.
    Development,
}

impl Config {
    /// Reads the file and every file that it names. Blocks; the crypto provider must be installed.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load(file: &Path, mode: Mode) -> Result<Self, Faults> {
        let text = read(file)
            .map_err(|error| Faults(vec![Fault::new(file.display().to_string(), error)]))?;
        Self::parse(&text, mode)
    }

    /// As [`Self::load`], for the file's text.
    ///
    /// # Errors
    /// All faults at once.
    pub fn parse(text: &str, mode: Mode) -> Result<Self, Faults> {
        // Duplicate keys end here, with their line.
        let root: Value = serde_saphyr::from_str(text)
            .map_err(|error| Faults(vec![Fault::new("", format!("not YAML: {error}"))]))?;
        let mut faults = Vec::new();
        let mut root = Section::root(root, KEYS, &mut faults);
        let stores = stores::read(&mut root, &mut faults);
        let limits = limits::read(&mut root, &mut faults);
        let refresh = refresh::read(&mut root, &mut faults);
        let tokens = tokens::read(&mut root, mode, &mut faults);
        let classes = classes::read(&mut root, &mut faults);
        let audit = audit::read(&mut root, &mut faults);
        let driver = driver::read(&mut root, &mut faults);
        let metrics = metrics::read(&mut root, &mut faults);
        let sidecar = sidecar::read(&mut root, &mut faults).unwrap_or_default();
        match (stores, limits, refresh, tokens, classes, audit, driver) {
            (
                Some(stores),
                Some(limits),
                Some(refresh),
                Some(tokens),
                Some(classes),
                Some(audit),
                Some(driver),
            ) if faults.is_empty() => {
                let faults = tokens.review_faults(&stores, &classes);
                if !faults.is_empty() {
                    return Err(Faults(faults));
                }
                Ok(Self {
                    stores,
                    limits,
                    refresh,
                    tokens,
                    classes,
                    audit,
                    driver,
                    metrics,
                    sidecar,
                })
            }
            _incomplete => Err(Faults(faults)),
        }
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
