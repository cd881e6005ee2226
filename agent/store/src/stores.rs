//! The stores by name: what the administrator configured, and nothing else.
//!
//! A store of kind `openbao` or `vault` is picked by its address or as the default; a provider by its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use sotto_core::identity::{Audience, StoreName};

use crate::config::{EntrySettings, Fault, ProviderSettings, StoreEntry, StoreSettings};
use crate::http::HttpsClient;
use crate::openbao::OpenBao;
use crate::plan::Subject;
use crate::provider::Provider;
use crate::provider::sockets::ProviderSockets;
use crate::session::Store;

/// All configured stores.
pub struct Stores {
    entries: Vec<Entry>,
    default: Option<StoreName>,
}

struct Entry {
    settings: EntrySettings,
    store: Arc<Store>,
}

impl Stores {
    /// Checks the configuration and reads the TLS files; opens no connection. Blocks: call it at start.
    ///
    /// # Errors
    /// All faults at once, with their paths from the configuration's root.
    pub fn open(configs: Vec<StoreEntry>, default: Option<StoreName>) -> Result<Self, Vec<Fault>> {
        let mut faults = Self::validate(&configs, default.as_ref());
        let mut entries = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            let Ok(settings) = config.check() else { continue };
            match open(&settings) {
                Ok(store) => entries.push(Entry { settings, store }),
                Err(fault) => faults.push(fault.within(&format!("stores[{index}]"))),
            }
        }
        if faults.is_empty() { Ok(Self { entries, default }) } else { Err(faults) }
    }

    /// Checks the configuration without reading a file.
    #[must_use]
    pub fn validate(configs: &[StoreEntry], default: Option<&StoreName>) -> Vec<Fault> {
        let mut faults = Vec::new();
        if configs.is_empty() {
            faults.push(Fault::new("stores", "no store is configured: add at least one"));
        }
        let mut names = BTreeSet::new();
        for (index, config) in configs.iter().enumerate() {
            let outer = format!("stores[{index}]");
            faults.extend(config.validate().into_iter().map(|fault| fault.within(&outer)));
            if !names.insert(config.name()) {
                let message =
                    format!("another store is named {:?}: give each its own", config.name());
                faults.push(Fault::new("name", message).within(&outer));
            }
        }
        faults.extend(default.and_then(|default| Self::check_default(configs, default)));
        faults
    }

    /// What is wrong with `defaults.store`.
    #[must_use]
    pub fn check_default(configs: &[StoreEntry], default: &StoreName) -> Option<Fault> {
        let message = match configs.iter().find(|config| config.name() == default.as_str()) {
            Some(StoreEntry::Remote(_)) => return None,
            Some(StoreEntry::Provider(_)) => format!(
                "{default} is of kind provider, which only a class's spec.provider picks: name a store of kind openbao or vault"
            ),
            None => format!("no store is named {default}: use the name of one of the stores"),
        };
        Some(Fault::new("defaults.store", message))
    }

    /// Stores made elsewhere: fakes and fault wrappers in tests.
    #[must_use]
    pub fn of(stores: Vec<(StoreSettings, Arc<Store>)>, default: Option<StoreName>) -> Self {
        let entry = |(settings, store)| Entry {
            settings: EntrySettings::Remote(Box::new(settings)),
            store,
        };
        Self { entries: stores.into_iter().map(entry).collect(), default }
    }

    /// The same with a provider more.
    #[must_use]
    pub fn and_provider(mut self, settings: ProviderSettings, store: Arc<Store>) -> Self {
        self.entries.push(Entry { settings: EntrySettings::Provider(settings), store });
        self
    }

    /// The same, with providers reached through `sockets` where the administrator named no directories.
    #[must_use]
    pub fn with_provider_sockets(mut self, sockets: &Arc<dyn ProviderSockets>) -> Self {
        for entry in &mut self.entries {
            if let EntrySettings::Provider(settings) = &entry.settings
                && settings.by_driver
            {
                entry.store = Arc::new(Provider::through(settings, Arc::clone(sockets)));
            }
        }
        self
    }

    /// The store of that name.
    #[must_use]
    pub fn get(&self, name: &StoreName) -> Option<&Arc<Store>> {
        self.entries.iter().find(|entry| entry.settings.name() == name).map(|entry| &entry.store)
    }

    /// The names of all stores, in the configuration's order.
    pub fn names(&self) -> impl Iterator<Item = &StoreName> {
        self.entries.iter().map(|entry| entry.settings.name())
    }

    /// The settings of the stores of kind `openbao` and `vault`, in the configuration's order.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &StoreSettings> {
        self.entries.iter().filter_map(|entry| match &entry.settings {
            EntrySettings::Remote(settings) => Some(&**settings),
            EntrySettings::Provider(_) => None,
        })
    }

    /// The provider of that name.
    pub(crate) fn provider(&self, name: &str) -> Option<&ProviderSettings> {
        self.entries.iter().find_map(|entry| match &entry.settings {
            EntrySettings::Provider(settings) if settings.name.as_str() == name => Some(settings),
            EntrySettings::Provider(_) | EntrySettings::Remote(_) => None,
        })
    }

    /// Every audience that some store wants, to compare with the CSIDriver's tokenRequests.
    #[must_use]
    pub fn audiences(&self) -> BTreeSet<&Audience> {
        self.entries.iter().map(|entry| entry.settings.audience()).collect()
    }

    /// The settings of the store of that name, if it is of kind `openbao` or `vault`.
    pub(crate) fn remote(&self, name: &StoreName) -> Option<&StoreSettings> {
        self.settings().find(|settings| settings.name == *name)
    }

    /// One store, and no other.
    pub(crate) fn only(settings: StoreSettings, is_default: bool) -> Result<Self, Fault> {
        let default = is_default.then(|| settings.name.clone());
        let settings = EntrySettings::Remote(Box::new(settings));
        let store = open(&settings)?;
        Ok(Self { entries: vec![Entry { settings, store }], default })
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

fn open(settings: &EntrySettings) -> Result<Arc<Store>, Fault> {
    match settings {
        EntrySettings::Remote(settings) => match HttpsClient::new(settings.tls.clone()) {
            Ok(https) => Ok(Arc::new(OpenBao::new(settings, https))),
            Err(error) => Err(Fault::new(&error.file().to_string(), error)),
        },
        EntrySettings::Provider(settings) => Ok(Arc::new(Provider::new(settings))),
    }
}
