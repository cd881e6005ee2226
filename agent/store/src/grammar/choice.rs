//! Which store a class uses, and how its pods log in there.
//!
//! Invariant: whatever a class says, it ends at a configured store that lists the pod's service account;
//! what it says about trust, mount or audience either agrees with the store or is refused.

use super::PlanError;
use super::parameters::{
    ADDRESS, AUTH_MOUNT, KUBERNETES_MOUNT, NAMESPACE, Parameter, Parameters, SERVER_NAME,
    SKIP_VERIFY, TRUST,
};
use crate::config::{AuthMethod, Origin, StoreSettings};
use crate::plan::{LoginPlan, StoreNamespace, Subject};
use crate::stores::Stores;
use crate::text::excerpt;

/// How a boolean that is false is written, as Go's `strconv.ParseBool` reads it.
const FALSE: &[&str] = &["0", "f", "F", "false", "False", "FALSE"];

/// The store and the login.
pub(super) struct Choice<'a> {
    pub(super) store: &'a StoreSettings,
    pub(super) login: LoginPlan,
}

impl<'a> Choice<'a> {
    pub(super) fn make(
        parameters: &Parameters<'_>,
        subject: &Subject,
        stores: &'a Stores,
        faults: &mut Vec<PlanError>,
    ) -> Option<Self> {
        refuse_weakening(parameters, faults);
        let store = store(parameters, subject, stores, faults)?;
        if !store.allow.admits(subject) {
            let (store, subject) = (store.name.clone(), subject.clone());
            faults.push(PlanError::NotAllowed { store, subject });
            return None;
        }
        check_server_name(parameters, store, faults);
        check_mount(parameters, store, faults);
        check_audience(parameters, store, faults);
        let namespace = namespace(parameters, store, faults);
        let role = role(parameters, store, faults);
        Some(Self { store, login: LoginPlan { role, mount: store.mount.clone(), namespace } })
    }
}

fn refuse_weakening(parameters: &Parameters<'_>, faults: &mut Vec<PlanError>) {
    for parameter in parameters.every(SKIP_VERIFY) {
        if !FALSE.contains(&parameter.value) {
            faults.push(PlanError::VerificationOff(parameter.name));
        }
    }
    for suffix in TRUST {
        faults.extend(parameters.every(suffix).map(|parameter| PlanError::Trust(parameter.name)));
    }
}

fn store<'a>(
    parameters: &Parameters<'_>,
    subject: &Subject,
    stores: &'a Stores,
    faults: &mut Vec<PlanError>,
) -> Option<&'a StoreSettings> {
    let known = || stores.addresses_for(subject);
    let Some(Parameter { name: parameter, value }) = parameters.prefixed(ADDRESS) else {
        let default = stores.default_settings();
        if default.is_none() {
            let parameter = parameters.name_of(ADDRESS);
            faults.push(PlanError::NoDefaultStore { parameter, known: known() });
        }
        return default;
    };
    let chosen =
        Origin::parse(value).ok().and_then(|origin| best(parameters, subject, stores, &origin));
    if chosen.is_none() {
        let address = excerpt(value);
        faults.push(PlanError::UnknownStore { parameter, address, known: known() });
    }
    chosen
}

/// Of several stores at one address (one a mount, a namespace or an audience): one that the subject may
/// use and that agrees with the class, else one that says by its faults what is wrong.
fn best<'a>(
    parameters: &Parameters<'_>,
    subject: &Subject,
    stores: &'a Stores,
    address: &Origin,
) -> Option<&'a StoreSettings> {
    let at = || stores.settings().filter(|store| store.address == *address);
    let admitted = || at().filter(|store| store.allow.admits(subject));
    admitted().find(|store| agrees(parameters, store)).or_else(|| admitted().next()).or(at().next())
}

fn agrees(parameters: &Parameters<'_>, store: &StoreSettings) -> bool {
    let mut faults = Vec::new();
    check_mount(parameters, store, &mut faults);
    check_audience(parameters, store, &mut faults);
    namespace(parameters, store, &mut faults);
    faults.is_empty()
}

fn check_server_name(
    parameters: &Parameters<'_>,
    store: &StoreSettings,
    faults: &mut Vec<PlanError>,
) {
    for parameter in parameters.every(SERVER_NAME) {
        if store.tls.server_name.as_deref() != Some(parameter.value) {
            let (parameter, store) = (parameter.name, store.name.clone());
            faults.push(PlanError::ServerName { parameter, store });
        }
    }
}

fn check_mount(parameters: &Parameters<'_>, store: &StoreSettings, faults: &mut Vec<PlanError>) {
    let (kubernetes, auth) =
        (parameters.prefixed(KUBERNETES_MOUNT), parameters.prefixed(AUTH_MOUNT));
    let given = match (kubernetes, auth) {
        (Some(one), Some(other)) => {
            faults.push(PlanError::TwoMounts(one.name, other.name));
            return;
        }
        (Some(given), None) | (None, Some(given)) => given,
        (None, None) => return,
    };
    if given.value.trim_matches('/') != store.mount {
        faults.push(PlanError::Mount {
            parameter: given.name,
            store: store.name.clone(),
            given: excerpt(given.value),
            expected: store.mount.clone(),
        });
    }
}

fn check_audience(parameters: &Parameters<'_>, store: &StoreSettings, faults: &mut Vec<PlanError>) {
    let other = parameters.audience().filter(|given| *given != store.audience.as_str());
    faults.extend(other.map(|given| PlanError::Audience {
        store: store.name.clone(),
        given: excerpt(given),
        expected: store.audience.clone(),
    }));
}

fn namespace(
    parameters: &Parameters<'_>,
    store: &StoreSettings,
    faults: &mut Vec<PlanError>,
) -> Option<StoreNamespace> {
    let Some(Parameter { name: parameter, value }) = parameters.prefixed(NAMESPACE) else {
        return store.namespace.clone();
    };
    let given = match StoreNamespace::parse(value) {
        Ok(given) => given,
        Err(source) => {
            faults.push(PlanError::BadStoreNamespace { parameter, source });
            return None;
        }
    };
    match &store.namespace {
        Some(expected) if !given.is_within(expected) => {
            let (store, expected) = (store.name.clone(), expected.clone());
            faults.push(PlanError::OtherStoreNamespace { parameter, store, expected });
            None
        }
        Some(_) | None => Some(given),
    }
}

fn role(
    parameters: &Parameters<'_>,
    store: &StoreSettings,
    faults: &mut Vec<PlanError>,
) -> Option<String> {
    let role = parameters.role().map(str::to_owned).or_else(|| store.role.clone());
    match &role {
        Some(role)
            if role.len() > 256 || !role.chars().all(|c| c == ' ' || c.is_ascii_graphic()) =>
        {
            faults.push(PlanError::BadRole);
        }
        None if store.method != AuthMethod::Cert => {
            faults.push(PlanError::NoRole(store.name.clone()));
        }
        Some(_) | None => {}
    }
    role
}
