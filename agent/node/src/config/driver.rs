//! `driver`: where the driver listens, and who it is.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::Fault;
use super::section::{self, Section};

/// Where the driver listens, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Its socket.
    pub socket: PathBuf,
    /// The uid that must be at the other end.
    pub uid: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    socket: Option<PathBuf>,
    uid: Option<u32>,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<Driver> {
    let raw = root.take("driver").unwrap_or_else(|| json!({}));
    let raw: Raw = section::read(raw, "driver", &[], faults)?;
    let socket = raw.socket.unwrap_or_else(|| PathBuf::from("/run/sotto/node.sock"));
    if !socket.is_absolute() {
        faults.push(Fault::new("driver.socket", "not absolute: write e.g. /run/sotto/node.sock"));
    }
    Some(Driver { socket, uid: raw.uid.unwrap_or(0) })
}
