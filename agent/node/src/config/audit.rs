//! `audit`: where audit records go.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::Fault;
use super::section::{self, Section};

/// Where audit records go.
#[derive(Debug)]
pub enum AuditOutput {
    /// Standard output; the process's own log is on standard error.
    Stdout,
    /// A file that is appended to.
    File(File),
    /// Nowhere. Opens of files then aren't even asked for, which makes them cheaper.
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    output: Option<Output>,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Output {
    Stdout,
    None,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<AuditOutput> {
    let raw = root.take("audit").unwrap_or_else(|| json!({}));
    let raw: Raw = section::read(raw, "audit", &[], faults)?;
    match (raw.output, raw.file) {
        (Some(Output::Stdout) | None, None) => Some(AuditOutput::Stdout),
        (Some(Output::None), None) => Some(AuditOutput::None),
        (None, Some(file)) => match open(&file) {
            Ok(file) => Some(AuditOutput::File(file)),
            Err(error) => {
                let message = format!("{} can't be written: {error}", file.display());
                faults.push(Fault::new("audit.file", message));
                None
            }
        },
        (Some(Output::Stdout | Output::None), Some(_)) => {
            faults.push(Fault::new("audit", "write either output, or file"));
            None
        }
    }
}

fn open(file: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(file)
}
