//! The CSI drivers of a node: what their objects say in the cluster, and which of them have registered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{CsiDriver, CsiVolume, Registered};

/// At least one driver; the first is that of node mode.
pub(super) struct Plugins(Mutex<Vec<Plugin>>);

#[derive(Clone)]
struct Plugin {
    driver: CsiDriver,
    registered: Option<Registered>,
}

impl Plugins {
    pub(super) fn new(first: CsiDriver, more: Vec<CsiDriver>) -> Self {
        let plugin = |driver| Plugin { driver, registered: None };
        Self(Mutex::new(std::iter::once(first).chain(more).map(plugin).collect()))
    }

    /// Every driver.
    pub(super) fn drivers(&self) -> Vec<CsiDriver> {
        self.lock().iter().map(|plugin| plugin.driver.clone()).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.lock().iter().any(|plugin| plugin.driver.name == name)
    }

    /// The driver of a volume, or the first if there is none of that name, and how it has registered.
    pub(super) fn of(&self, volume: &CsiVolume) -> (CsiDriver, Option<Registered>) {
        let plugins = self.lock();
        let named = plugins.iter().find(|plugin| plugin.driver.name == volume.driver);
        let plugin = named.unwrap_or(&plugins[0]);
        (plugin.driver.clone(), plugin.registered.clone())
    }

    /// How the first one has registered.
    pub(super) fn first_registered(&self) -> Option<Registered> {
        self.lock()[0].registered.clone()
    }

    pub(super) fn is_registered(&self, name: &str, registered: Registered) {
        let mut plugins = self.lock();
        if let Some(plugin) = plugins.iter_mut().find(|plugin| plugin.driver.name == name) {
            plugin.registered = Some(registered);
        }
    }

    /// None has registered.
    pub(super) fn forget(&self) {
        self.lock().iter_mut().for_each(|plugin| plugin.registered = None);
    }

    /// Replaces the object of this name, or the first if there is none.
    pub(super) fn apply(&self, driver: CsiDriver) {
        let mut plugins = self.lock();
        let at = plugins.iter().position(|plugin| plugin.driver.name == driver.name);
        plugins[at.unwrap_or(0)].driver = driver;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Plugin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
