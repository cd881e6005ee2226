//! The parameters of a class, as its author wrote them, turned into a plan: those of the `vault` and
//! `openbao` providers are read here, those of any other provider are handed to it as they stand.
//!
//! A configured provider of the class's name comes first; without one, `vault` and `openbao` are ours.
//!
//! Invariant: a class picks among the administrator's stores and can't weaken one: address, trust, mount
//! and audience are the store's, and a parameter that says otherwise is refused. All faults are found at
//! once. Called at publish and whenever a class changes.

mod choice;
mod error;
mod objects;
mod parameters;
mod permission;
mod provider;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::WorkloadIdentity;
use sotto_core::limits::Limits;

pub use error::{ObjectFault, PlanError};
pub use permission::PermissionError;

use crate::plan::{OpenBaoPlan, PlanSource, Subject, VolumePlan};
use crate::stores::Stores;

use choice::Choice;
use parameters::{Dialect, Parameters};

/// Reads a class for one pod.
///
/// # Errors
/// All faults at once, each with its parameter, or with its object's index and name.
pub fn plan(
    class: &SecretProviderClass,
    identity: &WorkloadIdentity,
    stores: &Stores,
    limits: &Limits,
) -> Result<VolumePlan, Vec<PlanError>> {
    let mut faults = Vec::new();
    if class.namespace != identity.namespace {
        let (class, pod) = (class.namespace.clone(), identity.namespace.clone());
        faults.push(PlanError::OtherNamespace { class, pod });
    }
    if let Some(settings) = stores.provider(&class.provider) {
        return provider::plan(class, identity, settings, limits, faults);
    }
    let Some(dialect) = Dialect::of(&class.provider) else {
        faults.push(provider::not_configured(&class.provider));
        return Err(faults);
    };
    let parameters = Parameters::new(&class.parameters, dialect);
    let mut warnings = parameters.unknown();
    let subject = Subject::from(identity);
    let choice = Choice::make(&parameters, &subject, stores, &mut faults);
    let read = objects::read(parameters.objects(), limits, &mut warnings, &mut faults);
    match choice {
        Some(Choice { store, login }) if faults.is_empty() => Ok(VolumePlan {
            store: store.name.clone(),
            audience: store.audience.clone(),
            subject,
            objects: read.objects,
            limits: *limits,
            warnings,
            source: PlanSource::OpenBao(OpenBaoPlan {
                login,
                requests: read.requests,
                picks: read.picks,
            }),
        }),
        Some(_) | None => Err(faults),
    }
}

#[cfg(test)]
mod tests;
