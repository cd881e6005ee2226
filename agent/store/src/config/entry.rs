//! `stores[]`, of whatever kind: which keys there are depends on `kind`.

use serde::Deserialize;
use serde::de::{self, Deserializer, Error as _};
use sotto_core::identity::{Audience, StoreName};

use super::{
    Fault, PROVIDER_KIND, ProviderConfig, ProviderSettings, StoreConfig, StoreKind, StoreSettings,
};

/// How the kinds are written.
const KINDS: &[&str] = &["openbao", "vault", PROVIDER_KIND];

/// `stores[]` as written.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreEntry {
    /// `openbao` or `vault`.
    Remote(StoreConfig),
    /// `provider`.
    Provider(ProviderConfig),
}

/// `stores[]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntrySettings {
    /// `openbao` or `vault`.
    Remote(Box<StoreSettings>),
    /// `provider`.
    Provider(ProviderSettings),
}

impl StoreEntry {
    /// Its name as written.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Remote(config) => &config.name,
            Self::Provider(config) => &config.name,
        }
    }

    /// Every mistake in it; paths are relative to this store. Reads no file.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        self.check().err().unwrap_or_default()
    }

    /// The checked settings. Reads no file.
    ///
    /// # Errors
    /// All faults at once.
    pub fn check(&self) -> Result<EntrySettings, Vec<Fault>> {
        match self {
            Self::Remote(config) => config.check().map(Box::new).map(EntrySettings::Remote),
            Self::Provider(config) => config.check().map(EntrySettings::Provider),
        }
    }
}

impl EntrySettings {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &StoreName {
        match self {
            Self::Remote(settings) => &settings.name,
            Self::Provider(settings) => &settings.name,
        }
    }

    /// The audience of the pods' tokens for it.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        match self {
            Self::Remote(settings) => &settings.audience,
            Self::Provider(settings) => &settings.audience,
        }
    }
}

impl From<StoreConfig> for StoreEntry {
    fn from(config: StoreConfig) -> Self {
        Self::Remote(config)
    }
}

impl From<ProviderConfig> for StoreEntry {
    fn from(config: ProviderConfig) -> Self {
        Self::Provider(config)
    }
}

impl<'de> Deserialize<'de> for StoreKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "openbao" => Ok(Self::OpenBao),
            "vault" => Ok(Self::Vault),
            PROVIDER_KIND => Err(D::Error::custom("a store of kind provider has other keys")),
            other => Err(de::Error::unknown_variant(other, KINDS)),
        }
    }
}
