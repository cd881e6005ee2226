//! Who may use a store: whole namespaces, single service accounts. Nobody by default.

use std::collections::BTreeSet;

use sotto_core::identity::{Namespace, ServiceAccountName};

use super::{AllowConfig, AuthMethod, Fault, keep};
use crate::plan::Subject;

const EVERYONE: &str = "*";

/// Who may use a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    everyone: bool,
    namespaces: BTreeSet<Namespace>,
    service_accounts: BTreeSet<Subject>,
}

impl AllowList {
    /// Whether the pods of this service account may use the store.
    #[must_use]
    pub fn admits(&self, subject: &Subject) -> bool {
        self.everyone
            || self.namespaces.contains(&subject.namespace)
            || self.service_accounts.contains(subject)
    }

    pub(super) fn check(config: &AllowConfig, method: AuthMethod, faults: &mut Vec<Fault>) -> Self {
        let mut list = Self::default();
        for (index, text) in config.namespaces.iter().enumerate() {
            let path = format!("allow.namespaces[{index}]");
            if text != EVERYONE {
                list.namespaces.extend(keep(&path, Namespace::parse(text.as_str()), faults));
            } else if method == AuthMethod::Cert {
                faults.push(Fault::new(
                    &path,
                    "auth method cert gives every pod the node's identity: list the namespaces",
                ));
            } else {
                list.everyone = true;
            }
        }
        for (index, text) in config.service_accounts.iter().enumerate() {
            let path = format!("allow.serviceAccounts[{index}]");
            list.service_accounts.extend(keep(&path, subject(text), faults));
        }
        if config.namespaces.is_empty() && config.service_accounts.is_empty() {
            faults.push(Fault::new(
                "allow",
                "nobody may use this store: list namespaces or serviceAccounts, or namespaces: [\"*\"] for all",
            ));
        }
        list
    }
}

fn subject(text: &str) -> Result<Subject, String> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or_else(|| "write it as namespace/name, e.g. shop/web".to_owned())?;
    let namespace = Namespace::parse(namespace).map_err(|error| error.to_string())?;
    let service_account = ServiceAccountName::parse(name).map_err(|error| error.to_string())?;
    Ok(Subject { namespace, service_account })
}
