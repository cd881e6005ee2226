//! The stores by name: what the administrator configured, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use sotto_core::identity::{Audience, StoreName};

use crate::config::{Fault, StoreConfig, StoreSettings};
use crate::http::HttpsClient;
use crate::openbao::OpenBao;
use crate::plan::Subject;
use crate::session::Store;

/// All configured stores.
pub struct Stores {
    entries: Vec<Entry>,
    default: Option<StoreName>,
}

struct Entry {
    settings: StoreSettings,
    store: Arc<Store>,
}

impl Stores {
    /// Checks the configuration and reads the TLS files; opens no connection. Blocks: call it at start.
    ///
    /// # Errors
    /// All faults at once, with their paths from the configuration's root.
    pub fn open(configs: Vec<StoreConfig>, default: Option<StoreName>) -> Result<Self, Vec<Fault>> {
        let mut faults = Self::validate(&configs, default.as_ref());
        let mut entries = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            let Ok(settings) = config.check() else { continue };
            match HttpsClient::new(settings.tls.clone()) {
                Ok(https) => {
                    let store: Arc<Store> = Arc::new(OpenBao::new(&settings, https));
                    entries.push(Entry { settings, store });
                }
                Err(error) => {
                    let path = error.file().to_string();
                    faults.push(Fault::new(&path, error).within(&format!("stores[{index}]")));
                }
            }
        }
        if faults.is_empty() { Ok(Self { entries, default }) } else { Err(faults) }
    }

    /// Checks the configuration without reading a file.
    #[must_use]
    pub fn validate(configs: &[StoreConfig], default: Option<&StoreName>) -> Vec<Fault> {
        let mut faults = Vec::new();
        if configs.is_empty() {
            faults.push(Fault::new("stores", "no store is configured: add at least one"));
        }
        let mut names = BTreeSet::new();
        for (index, config) in configs.iter().enumerate() {
            let outer = format!("stores[{index}]");
            faults.extend(config.validate().into_iter().map(|fault| fault.within(&outer)));
            if !names.insert(config.name.as_str()) {
                let message =
                    format!("another store is named {:?}: give each its own", config.name);
                faults.push(Fault::new("name", message).within(&outer));
            }
        }
        if let Some(name) = default.filter(|name| !names.contains(name.as_str())) {
            let message = format!("no store is named {name}: use the name of one of the stores");
            faults.push(Fault::new("defaults.store", message));
        }
        faults
    }

    /// Stores made elsewhere: fakes and fault wrappers in tests.
    #[must_use]
    pub fn of(stores: Vec<(StoreSettings, Arc<Store>)>, default: Option<StoreName>) -> Self {
        let entries =
            stores.into_iter().map(|(settings, store)| Entry { settings, store }).collect();
        Self { entries, default }
    }

    /// The store of that name.
    #[must_use]
    pub fn get(&self, name: &StoreName) -> Option<&Arc<Store>> {
        self.entries.iter().find(|entry| entry.settings.name == *name).map(|entry| &entry.store)
    }

    /// The settings of all stores, in the configuration's order.
    pub fn settings(&self) -> impl Iterator<Item = &StoreSettings> {
        self.entries.iter().map(|entry| &entry.settings)
    }

    /// Every audience that some store wants, to compare with the CSIDriver's tokenRequests.
    #[must_use]
    pub fn audiences(&self) -> BTreeSet<&Audience> {
        self.settings().map(|settings| &settings.audience).collect()
    }

    /// The store of classes that name no address.
    pub(crate) fn default_settings(&self) -> Option<&StoreSettings> {
        let name = self.default.as_ref()?;
        self.settings().find(|settings| settings.name == *name)
    }

    /// Addresses that this subject may name, for a message: at most five.
    pub(crate) fn addresses_for(&self, subject: &Subject) -> Vec<String> {
        let admitted = self.settings().filter(|settings| settings.allow.admits(subject));
        let addresses: BTreeSet<_> = admitted.map(|settings| &settings.address).collect();
        addresses.into_iter().take(5).map(ToString::to_string).collect()
    }
}
