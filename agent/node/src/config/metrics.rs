//! `metrics`: where scrapes are answered.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::json;

use super::Fault;
use super::section::{self, Section};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    address: Option<String>,
}

/// The address to listen at; `None` where none is configured.
pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<SocketAddr> {
    let raw = root.take("metrics").unwrap_or_else(|| json!({}));
    let raw: Raw = section::read(raw, "metrics", &[], faults)?;
    let address = raw.address?;
    match address.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!("{address:?} is no address with a port: write e.g. 0.0.0.0:9464");
            faults.push(Fault::new("metrics.address", message));
            None
        }
    }
}
