//! Logins that a volume has gone over from: its class names another role now, or its store is another one.
//!
//! Invariant: a former login is shown to the store that it was made at and to no other, and is revoked there as soon
//! as the mount shows what came after it, or with the volume's end: by the trust that the administrator has set for that
//! place now, or, where the store is at another place now, by its own. Until then it is left to the next worker, which
//! does the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use sotto_core::class::SecretProviderClass;
use sotto_core::secret::SecretString;
use sotto_proto::deposit::v1;
use sotto_store::StoreSession;

use super::request::VolumeSpec;
use super::settings::{Planned, Settings};

/// One of them.
pub(super) struct Former {
    pub(super) settings: Arc<Settings>,
    pub(super) class: Arc<SecretProviderClass>,
    pub(super) session: Arc<StoreSession>,
    /// Somebody is at it.
    pub(super) is_being_revoked: bool,
}

impl Former {
    pub(super) fn message(&self) -> v1::Former {
        v1::Former {
            provider: self.class.provider.clone(),
            parameters: self.class.parameters.clone().into_iter().collect(),
            settings: self.settings.left().to_vec(),
            session: self.session.carry().to_vec(),
        }
    }

    /// As a former worker left it; `None` where its store can't be known any more.
    pub(super) fn resumed(
        left: &v1::Former,
        spec: &VolumeSpec,
        token: &SecretString,
        settings: &[Arc<Settings>],
    ) -> Option<Self> {
        let settings = settings.iter().find(|settings| settings.left() == left.settings)?;
        let class = SecretProviderClass {
            namespace: spec.identity.namespace.clone(),
            name: spec.class.clone(),
            provider: left.provider.clone(),
            parameters: left.parameters.clone().into_iter().collect::<BTreeMap<_, _>>(),
            wants_secret_objects: false,
        };
        let planned = Planned::of(Arc::clone(settings), Arc::new(class), spec).ok()?;
        let Planned { settings, class, plan } = planned;
        let session = settings.stores.get(&plan.store)?.resume(&plan, token, &left.session)?;
        Some(Self { settings, class, session: Arc::new(session), is_being_revoked: false })
    }
}
