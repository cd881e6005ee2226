//! What is reported about volumes, and when: what kubelet doesn't show.

use std::sync::Arc;
use std::time::Duration;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::VolumeId;
use sotto_core::rotation::Freshness;
use tokio::sync::oneshot;

use super::Shared;
use super::error::VolumeError;
use super::owner::Command;
use super::request::VolumeSpec;
use super::turning::Consequence;
use crate::reporter::{
    CLASS_EDIT_FAILED, CLASS_PARTLY_IGNORED, SECRET_OBJECTS_IGNORED, SECRET_REFUSED,
    SECRETS_CLOSED, SECRETS_FRESH, SECRETS_STALE, Severity, TOKEN_REFRESH_FAILED,
};

/// How long a volume's owner may take to say what it serves; the status is a courtesy.
const VERSIONS_DEADLINE: Duration = Duration::from_secs(1);

/// The class asks for copies in Kubernetes Secrets.
pub(super) fn secret_objects(shared: &Shared, spec: &VolumeSpec, class: &SecretProviderClass) {
    if class.wants_secret_objects {
        let message = format!(
            "SecretProviderClass {}: secretObjects is not synced: secrets don't pass through etcd here; \
             let the pod read the volume's files, and remove secretObjects",
            spec.class
        );
        warn(shared, spec, SECRET_OBJECTS_IGNORED, message);
    }
}

/// Parts of the class have no effect.
pub(super) fn plan_warnings(shared: &Shared, spec: &VolumeSpec, warnings: &[String]) {
    if !warnings.is_empty() {
        let message = format!("SecretProviderClass {}: {}", spec.class, warnings.join("; "));
        warn(shared, spec, CLASS_PARTLY_IGNORED, message);
    }
}

/// A republish is always answered OK by the driver, so that kubelet shows nothing of this.
pub(super) fn token_not_taken(shared: &Shared, volume: &VolumeId, error: &VolumeError) {
    let is_of_the_moment = matches!(
        error,
        VolumeError::NotReady(_)
            | VolumeError::Ending(_)
            | VolumeError::Released(_)
            | VolumeError::ShuttingDown
            | VolumeError::Unknown(_)
    );
    if let Some(spec) = shared.registry.spec(volume).filter(|_| !is_of_the_moment) {
        let message = format!(
            "the pod's fresh token was not taken: {error}; the volume is served on with its last login"
        );
        warn(shared, &spec, TOKEN_REFRESH_FAILED, message);
    }
}

/// The class was edited, and the volume can't follow.
pub(super) fn class_edit_failed(
    shared: &Shared,
    spec: &VolumeSpec,
    what: &str,
    error: &VolumeError,
) {
    let now = "what it says now can't be served";
    let message = format!(
        "{what}, and {now}: {error}; the volume goes on as it was before, and tries again at a later refresh"
    );
    warn(shared, spec, CLASS_EDIT_FAILED, message);
}

/// What age or its end made of the volume's values.
pub(super) fn aged(shared: &Shared, spec: &VolumeSpec, consequence: &Consequence) {
    let tell = |severity, reason, message: &str| {
        tracing::info!(volume = %spec.volume, reason, "{message}");
        shared.services.reporter.report(&spec.identity, severity, reason, message.to_owned());
    };
    match consequence.became {
        Some(Freshness::Stale) => {
            let why = consequence.outage.as_deref().unwrap_or("it isn't asked for now");
            let message = format!(
                "the store can't be reached: the last good values are served; check the store ({why})"
            );
            tell(Severity::Warning, SECRETS_STALE, &message);
        }
        Some(Freshness::Fresh) => {
            tell(Severity::Normal, SECRETS_FRESH, "the values are those of the store again");
        }
        Some(Freshness::Closed) | None => {}
    }
    if consequence.close {
        let message = "the last good values are older than max-stale: nothing is readable until the store answers; check the store";
        tell(Severity::Warning, SECRETS_CLOSED, message);
    }
}

/// The store refuses an object that the volume had.
pub(super) fn refused(shared: &Shared, spec: &VolumeSpec, reason: &str) {
    let message = format!(
        "{reason}: check that the secret is there and that a policy of the pod's role allows reading it"
    );
    let reporter = &shared.services.reporter;
    reporter.report(&spec.identity, Severity::Warning, SECRET_REFUSED, message);
}

/// The volume is served: tells with which objects.
pub(super) async fn served(shared: &Shared, volume: &VolumeId) {
    let registry = &shared.registry;
    let (Some(spec), Some(mailbox)) = (registry.spec(volume), registry.mailbox(volume)) else {
        return;
    };
    // The owner of a volume that is served answers this at once with what it serves.
    let (reply, answer) = oneshot::channel();
    if mailbox.try_send(Box::new(Command::Prepare { shown: None, reply })).is_err() {
        return;
    }
    if let Ok(Ok(Ok(showing))) = tokio::time::timeout(VERSIONS_DEADLINE, answer).await {
        let (reporter, versions) = (&shared.services.reporter, &showing.versions);
        reporter.served(&spec.identity, &spec.class, &spec.target_path, versions);
    }
}

/// The volume is gone.
pub(super) fn released(shared: &Shared, spec: Option<Arc<VolumeSpec>>) {
    if let Some(spec) = spec {
        shared.services.reporter.released(&spec.identity, &spec.class);
    }
}

fn warn(shared: &Shared, spec: &VolumeSpec, reason: &'static str, message: String) {
    tracing::warn!(volume = %spec.volume, pod = %spec.identity, reason, "{message}");
    shared.services.reporter.report(&spec.identity, Severity::Warning, reason, message);
}
