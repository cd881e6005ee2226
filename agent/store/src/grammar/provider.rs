//! A class of a configured provider: its parameters go to the provider as they stand.
//!
//! Invariant: who the pod is, kubelet says. A parameter that says it otherwise doesn't reach the provider,
//! which would believe it; so the class's author can't choose whose secrets are fetched.

use std::collections::BTreeMap;

use sotto_core::attributes::{
    EPHEMERAL, KUBELET_PREFIX, POD_NAME, POD_NAMESPACE, POD_UID, SECRET_PROVIDER_CLASS,
    SERVICE_ACCOUNT,
};
use sotto_core::class::SecretProviderClass;
use sotto_core::identity::WorkloadIdentity;
use sotto_core::limits::Limits;

use super::PlanError;
use crate::config::{ProviderSettings, is_provider_name};
use crate::plan::{PlanSource, ProviderPlan, Subject, VolumePlan};
use crate::text;

pub(super) fn plan(
    class: &SecretProviderClass,
    identity: &WorkloadIdentity,
    settings: &ProviderSettings,
    limits: &Limits,
    mut faults: Vec<PlanError>,
) -> Result<VolumePlan, Vec<PlanError>> {
    let subject = Subject::from(identity);
    if !settings.allow.admits(&subject) {
        let (store, subject) = (settings.name.clone(), subject.clone());
        faults.push(PlanError::NotAllowed { store, subject });
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut warnings = Vec::new();
    let mut attributes = BTreeMap::new();
    for (name, value) in &class.parameters {
        if name.starts_with(KUBELET_PREFIX) || name == SECRET_PROVIDER_CLASS {
            let name = text::excerpt(name);
            warnings.push(format!("parameter {name:?} is kubelet's to say and was ignored"));
        } else {
            attributes.insert(name.clone(), value.clone());
        }
    }
    attributes.extend(told_by_kubelet(class, identity));
    Ok(VolumePlan {
        store: settings.name.clone(),
        audience: settings.audience.clone(),
        subject,
        objects: Vec::new(),
        limits: *limits,
        warnings,
        source: PlanSource::Provider(ProviderPlan { attributes, pod: identity.pod_uid.clone() }),
    })
}

/// What the reference driver adds to the parameters: all of the volume's context.
fn told_by_kubelet(
    class: &SecretProviderClass,
    identity: &WorkloadIdentity,
) -> impl Iterator<Item = (String, String)> {
    let told = [
        (SECRET_PROVIDER_CLASS, class.name.as_str()),
        (EPHEMERAL, "true"),
        (POD_NAME, identity.pod_name.as_str()),
        (POD_NAMESPACE, identity.namespace.as_str()),
        (POD_UID, identity.pod_uid.as_str()),
        (SERVICE_ACCOUNT, identity.service_account.as_str()),
    ];
    told.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter()
}

/// What a class of no configured provider is told.
pub(super) fn not_configured(provider: &str) -> PlanError {
    if is_provider_name(provider) {
        PlanError::ProviderNotConfigured(provider.to_owned())
    } else {
        PlanError::Provider(text::excerpt(provider))
    }
}
