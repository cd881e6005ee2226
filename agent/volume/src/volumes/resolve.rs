//! A class resolved for a volume that somebody else serves: the sidecar of its pod.
//!
//! Invariant: the same look-up, the same grammar and the same allow lists as for a volume that is served here, with
//! the same words where they refuse; nothing is fetched, and no token is asked for. Called by `sotto-node`.

use std::sync::Arc;
use std::time::Duration;

use sotto_core::audit::AuditAction;
use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, NodeName, VolumeId, WorkloadIdentity};
use sotto_core::limits::Limits;
use sotto_core::rotation::RefreshPolicy;
use sotto_handoff::message::Resolve;
use sotto_handoff::refusal::Refusal;
use sotto_store::{VolumePlan, grammar};
use tokio::time::Instant;

use super::error::VolumeError;
use super::request::{self, RequestError, VolumeSpec};
use super::{Settings, Volumes, refusal, report};
use crate::audit::VolumeAudit;

/// Longest that anybody waits for a class.
const LONGEST: Duration = Duration::from_secs(20);

/// A volume whose class is resolved.
pub struct Resolution {
    spec: VolumeSpec,
    /// The class.
    pub class: Arc<SecretProviderClass>,
    /// What it needs of its store.
    pub plan: VolumePlan,
    /// How large the volume may be.
    pub limits: Limits,
    /// How it is kept fresh, where the pod's author doesn't say.
    pub refresh: RefreshPolicy,
    /// When the answer has to be there.
    pub end: Instant,
}

impl Resolution {
    /// The volume.
    #[must_use]
    pub fn volume(&self) -> &VolumeId {
        &self.spec.volume
    }

    /// Its pod.
    #[must_use]
    pub fn pod(&self) -> &WorkloadIdentity {
        &self.spec.identity
    }

    /// What its author should know about it, to see whether it was said.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let copies = self.class.wants_secret_objects.then(|| "secretObjects".to_owned());
        copies.into_iter().chain(self.plan.warnings.iter().cloned()).collect()
    }
}

/// A class that can't be served.
#[derive(Debug)]
pub struct Unresolved {
    spec: Option<VolumeSpec>,
    reason: String,
    /// For the driver.
    pub refusal: Refusal,
}

impl Unresolved {
    fn of(spec: Option<VolumeSpec>, error: &VolumeError) -> Self {
        Self { spec, reason: error.to_string(), refusal: refusal::of(error) }
    }

    /// The volume, where the request names one.
    #[must_use]
    pub fn volume(&self) -> Option<&VolumeId> {
        self.spec.as_ref().map(|spec| &spec.volume)
    }
}

impl Volumes {
    /// Resolves the class that the request names, for the pod that it names.
    ///
    /// # Errors
    /// What a volume that is served here would be refused with.
    pub async fn resolve(&self, message: Resolve) -> Result<Resolution, Unresolved> {
        let services = &self.0.services;
        let spec = spec(&message, &services.node)
            .map_err(|error| Unresolved::of(None, &VolumeError::Request(error)))?;
        let deadline = match message.deadline_ms {
            0 => LONGEST,
            left => Duration::from_millis(left).min(LONGEST),
        };
        let end = Instant::now() + deadline;
        match self.planned(&spec, end, deadline).await {
            Ok((class, plan)) => {
                let Settings { limits, refresh, .. } = *services.settings;
                Ok(Resolution { spec, class, plan, limits, refresh, end })
            }
            Err(error) => Err(Unresolved::of(Some(spec), &error)),
        }
    }

    /// Records that the volume was not resolved.
    pub fn audit_unresolved(&self, unresolved: &Unresolved) {
        if let Some(spec) = &unresolved.spec {
            self.audit_of(spec).decided(AuditAction::Resolve, Some(unresolved.reason.clone()));
        }
    }

    /// Tells the pod's author what Prepare would tell.
    pub fn tell_warnings(&self, resolution: &Resolution) {
        let Resolution { spec, class, plan, .. } = resolution;
        report::secret_objects(&self.0, spec, class);
        report::plan_warnings(&self.0, spec, &plan.warnings);
    }

    /// Records that the volume was resolved, or why it was refused after all.
    pub fn audit_resolved(&self, resolution: &Resolution, refusal: Option<&Refusal>) {
        let mut audit = self.audit_of(&resolution.spec);
        audit.set_store(&resolution.plan.store);
        audit.decided(AuditAction::Resolve, refusal.map(|refusal| refusal.message().to_owned()));
    }

    fn audit_of(&self, spec: &VolumeSpec) -> VolumeAudit {
        let log = self.0.services.audit.clone();
        VolumeAudit::new(log, &spec.volume, &spec.identity)
    }

    async fn planned(
        &self,
        spec: &VolumeSpec,
        end: Instant,
        deadline: Duration,
    ) -> Result<(Arc<SecretProviderClass>, VolumePlan), VolumeError> {
        let services = &self.0.services;
        let settings = &services.settings;
        let class = services.classes.class(&spec.identity.namespace, &spec.class);
        let what = "the SecretProviderClass was not read";
        let late = |_| VolumeError::Deadline { what, deadline };
        let class = tokio::time::timeout_at(end, class).await.map_err(late)??;
        let plan = grammar::plan(&class, &spec.identity, &settings.stores, &settings.limits)
            .map_err(|errors| VolumeError::Plan { class: spec.class.clone(), errors })?;
        Ok((class, plan))
    }
}

fn spec(message: &Resolve, own: &NodeName) -> Result<VolumeSpec, RequestError> {
    let identity = request::identity(message.pod.clone().ok_or(RequestError::NoPod)?)?;
    if identity.node != *own {
        return Err(RequestError::OtherNode { pod: identity.node, own: own.clone() });
    }
    Ok(VolumeSpec {
        volume: request::volume(&message.volume_id)?,
        identity,
        class: ClassName::parse(message.secret_provider_class.as_str())?,
        group: None,
        optional: false,
        refresh: None,
        max_stale: None,
        target_path: String::new(),
    })
}
