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
    /// Its name, that of its CSIDriver object: sotto-csi's --driver-name.
    pub name: String,
}

impl Driver {
    /// The same driver under the name that the command line gives, which comes before the file's.
    ///
    /// # Errors
    /// Not a CSI driver's name.
    pub fn named(self, name: Option<String>) -> Result<Self, Fault> {
        match name {
            None => Ok(self),
            Some(name) if is_driver_name(&name) => Ok(Self { name, ..self }),
            Some(_) => Err(Fault::new("--driver-name", NOT_A_NAME)),
        }
    }
}

const NOT_A_NAME: &str = "not a CSI driver's name: write e.g. csi.sotto.dev";
/// The driver's own default.
const DEFAULT_NAME: &str = "csi.sotto.dev";
/// Longest name that CSI allows, in bytes.
const LONGEST_NAME_BYTES: usize = 63;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
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
    let name = raw.name.unwrap_or_else(|| DEFAULT_NAME.to_owned());
    if !is_driver_name(&name) {
        faults.push(Fault::new("driver.name", NOT_A_NAME));
    }
    Some(Driver { socket, uid: raw.uid.unwrap_or(0), name })
}

/// It becomes a part of a URL's path.
fn is_driver_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= LONGEST_NAME_BYTES
        && ends.iter().all(|end| end.is_some_and(plain))
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_name_comes_first_and_is_checked() {
        let driver = || Driver { socket: "/s".into(), uid: 0, name: DEFAULT_NAME.to_owned() };
        assert_eq!(driver().named(None).unwrap(), driver());
        let name = "secrets-store.csi.k8s.io";
        assert_eq!(driver().named(Some(name.to_owned())).unwrap().name, name);
        assert!(driver().named(Some("../x".to_owned())).is_err());
    }
}
