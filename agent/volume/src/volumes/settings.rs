//! What the administrator sets for volumes: the stores with their gates, and how large and how fresh volumes are.
//!
//! Invariant: a volume's plan, its login and its gate are of one and the same settings. Settings never change; where
//! the administrator's do, others come with the class ([`crate::classes::ClassSource::class_now`]), and a volume goes over
//! to them whole or not at all. Made by an agent's `app`, or by who knows its classes.

use std::sync::Arc;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::StoreName;
use sotto_core::limits::Limits;
use sotto_core::rotation::RefreshPolicy;
use sotto_store::{Stores, VolumePlan, grammar};

use super::error::VolumeError;
use super::gate::{Gate, Gates};
use super::request::VolumeSpec;

/// One set of them.
pub struct Settings {
    /// The stores.
    pub stores: Arc<Stores>,
    /// How large volumes may be.
    pub limits: Limits,
    /// How often and how long values are kept, where the pod doesn't say.
    pub refresh: RefreshPolicy,
    gates: Arc<Gates>,
    left: Vec<u8>,
}

impl Settings {
    /// With stores that nobody has asked yet.
    #[must_use]
    pub fn new(stores: Arc<Stores>, limits: Limits, refresh: RefreshPolicy) -> Self {
        let gates = Arc::new(Gates::new(stores.names()));
        Self { stores, limits, refresh, gates, left: Vec::new() }
    }

    /// The same stores: logins at them are as good as they were.
    #[must_use]
    pub fn but(&self, limits: Limits, refresh: RefreshPolicy) -> Self {
        let (stores, gates) = (Arc::clone(&self.stores), Arc::clone(&self.gates));
        Self { stores, limits, refresh, gates, left: Vec::new() }
    }

    /// What the next worker makes the same settings of, unless it has them from its configuration. Nothing secret.
    #[must_use]
    pub fn leaving(self, left: Vec<u8>) -> Self {
        Self { left, ..self }
    }

    pub(super) fn left(&self) -> &[u8] {
        &self.left
    }

    pub(super) fn gate(&self, store: &StoreName) -> Option<&Arc<Gate>> {
        self.gates.of(store)
    }

    pub(super) fn has_stores_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stores, &other.stores)
    }

    /// The pod's wishes within the administrator's bound: nobody but the administrator says how long a withdrawn
    /// secret may stay readable.
    pub(super) fn policy(&self, spec: &VolumeSpec) -> RefreshPolicy {
        let default = self.refresh;
        RefreshPolicy {
            interval: spec.refresh.unwrap_or(default.interval).min(default.max_stale),
            max_stale: spec.max_stale.unwrap_or(default.max_stale).min(default.max_stale),
            on_revoke: default.on_revoke,
        }
    }
}

/// A class, planned.
pub(super) struct Planned {
    pub(super) settings: Arc<Settings>,
    pub(super) class: Arc<SecretProviderClass>,
    pub(super) plan: VolumePlan,
}

impl Planned {
    pub(super) fn of(
        settings: Arc<Settings>,
        class: Arc<SecretProviderClass>,
        spec: &VolumeSpec,
    ) -> Result<Self, VolumeError> {
        let plan = grammar::plan(&class, &spec.identity, &settings.stores, &settings.limits)
            .map_err(|errors| VolumeError::Plan { class: spec.class.clone(), errors })?;
        Ok(Self { settings, class, plan })
    }
}
