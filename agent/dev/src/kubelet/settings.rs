//! What a kubelet is told.

use std::path::PathBuf;
use std::sync::Arc;

use sotto_core::clock::{Clock, SystemClock};

use super::CsiDriver;
use crate::issuer::Issuer;

/// What a kubelet is told.
pub struct KubeletSettings {
    /// Its directory, `/var/lib/kubelet` on a real node.
    pub directory: PathBuf,
    /// The driver's socket, until it registers another.
    pub socket: PathBuf,
    /// The node's name.
    pub node_name: String,
    /// What the CSIDriver object says.
    pub driver: CsiDriver,
    /// Those of more drivers.
    pub more_drivers: Vec<CsiDriver>,
    /// Who issues the pods' tokens.
    pub issuer: Issuer,
    /// The time that tokens are issued and refreshed by.
    pub clock: Arc<dyn Clock>,
}

impl KubeletSettings {
    /// With the machine's clock.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        socket: PathBuf,
        node_name: &str,
        driver: CsiDriver,
        issuer: Issuer,
    ) -> Self {
        let (node_name, clock) = (node_name.to_owned(), Arc::new(SystemClock));
        let more_drivers = Vec::new();
        Self { directory, socket, node_name, driver, more_drivers, issuer, clock }
    }
}
