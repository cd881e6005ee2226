//! What the sidecar is to serve and whom it is to believe, as `sotto-node` says, checked.
//!
//! Invariant: an [`Assigned`] keeps the bounds that the configuration file has; its store is checked where it is
//! made, by the same rules as in that file. Nothing in it is secret.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use sotto_core::attributes::MIN_REFRESH;
use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace};
use sotto_core::limits::Limits;
use sotto_core::rotation::{OnRevoke, RefreshPolicy};
use sotto_handoff::message::{
    AssignedClass, AssignedLimits, AssignedRefresh, AssignedStore, Assignment, Code,
};
use sotto_handoff::refusal::Refusal;

/// What settings are made of: others are needed where these change.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// The store.
    pub store: AssignedStore,
    /// How large the volume may be.
    pub limits: Limits,
    /// How it is kept fresh.
    pub refresh: RefreshPolicy,
}

/// One assignment, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Assigned {
    /// What its settings are made of.
    pub basis: Basis,
    /// Whether the pod has a user namespace of its own.
    pub own_users: bool,
    provider: String,
    parameters: BTreeMap<String, String>,
}

/// Why an assignment can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what sotto-node assigned to this sidecar can't be used: {0}")]
pub struct AssignmentError(String);

impl From<AssignmentError> for Refusal {
    fn from(error: AssignmentError) -> Self {
        Self::new(Code::InvalidArgument, &error.to_string())
    }
}

impl AssignmentError {
    /// For reasons found where the store is made.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl Assigned {
    /// Checks it.
    ///
    /// # Errors
    /// What is missing or out of its bounds.
    pub fn read(message: Assignment) -> Result<Self, AssignmentError> {
        let absent = |what| move || AssignmentError(format!("it has no {what}"));
        let AssignedClass { provider, parameters } = message.class.ok_or_else(absent("class"))?;
        let basis = Basis {
            store: message.store.ok_or_else(absent("store"))?,
            limits: limits(&message.limits.ok_or_else(absent("limits"))?)?,
            refresh: refresh(&message.refresh.ok_or_else(absent("refresh"))?)?,
        };
        let parameters = parameters.into_iter().collect();
        Ok(Self { basis, own_users: message.own_users, provider, parameters })
    }

    /// Its class, by the name that the pod gives it.
    #[must_use]
    pub fn class(&self, namespace: &Namespace, name: &ClassName) -> SecretProviderClass {
        SecretProviderClass {
            namespace: namespace.clone(),
            name: name.clone(),
            provider: self.provider.clone(),
            parameters: self.parameters.clone(),
            // sotto-node has told the pod's author.
            wants_secret_objects: false,
        }
    }
}

fn limits(message: &AssignedLimits) -> Result<Limits, AssignmentError> {
    let within = |what: &str, value: u64, range: RangeInclusive<usize>| {
        let value = usize::try_from(value).ok().filter(|value| range.contains(value));
        value.ok_or_else(|| AssignmentError(format!("limits.{what} is out of range")))
    };
    let limits = Limits {
        object_bytes: within("objectBytes", message.object_bytes, Limits::OBJECT_BYTES)?,
        volume_bytes: within("volumeBytes", message.volume_bytes, Limits::VOLUME_BYTES)?,
        objects: within("objects", message.objects, Limits::OBJECTS)?,
        volumes: 1,
    };
    if limits.object_bytes > limits.volume_bytes {
        return Err(AssignmentError("limits.objectBytes is larger than limits.volumeBytes".into()));
    }
    Ok(limits)
}

fn refresh(message: &AssignedRefresh) -> Result<RefreshPolicy, AssignmentError> {
    let interval = Duration::from_millis(message.interval_ms);
    if interval < MIN_REFRESH {
        return Err(AssignmentError("refresh.interval is under 1s".to_owned()));
    }
    let on_revoke = if message.until_max_stale { OnRevoke::UntilMaxStale } else { OnRevoke::Close };
    let max_stale = Duration::from_millis(message.max_stale_ms);
    Ok(RefreshPolicy { interval, max_stale, on_revoke })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Assignment {
        Assignment {
            class: Some(AssignedClass::default()),
            store: Some(AssignedStore::default()),
            limits: Some(AssignedLimits { object_bytes: 1, volume_bytes: 2, objects: 3 }),
            refresh: Some(AssignedRefresh {
                interval_ms: 1_000,
                max_stale_ms: 2_000,
                until_max_stale: true,
            }),
            own_users: true,
        }
    }

    #[test]
    fn a_whole_assignment_is_accepted_and_is_for_one_volume() {
        let assigned = Assigned::read(good()).unwrap();
        assert!(assigned.own_users);
        assert_eq!((assigned.basis.limits.objects, assigned.basis.limits.volumes), (3, 1));
        assert_eq!(assigned.basis.refresh.on_revoke, OnRevoke::UntilMaxStale);
    }

    #[test]
    fn what_is_missing_or_out_of_bounds_is_refused() {
        type Spoil = fn(&mut Assignment);
        let cases: [(Spoil, &str); 8] = [
            (|it| it.class = None, "no class"),
            (|it| it.store = None, "no store"),
            (|it| it.limits = None, "no limits"),
            (|it| it.refresh = None, "no refresh"),
            (|it| it.refresh.as_mut().unwrap().interval_ms = 999, "refresh.interval"),
            (|it| it.limits.as_mut().unwrap().objects = 10_001, "limits.objects"),
            (|it| it.limits.as_mut().unwrap().volume_bytes = u64::MAX, "limits.volumeBytes"),
            (|it| it.limits.as_mut().unwrap().object_bytes = 3, "larger than"),
        ];
        for (spoil, words) in cases {
            let mut message = good();
            spoil(&mut message);
            let error = Assigned::read(message).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
