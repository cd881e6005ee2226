//! From a request to a volume's secrets: class, plan, token, login, fetch, snapshot.
//!
//! Invariant: nothing is sent to a store before the pod's token was verified against the volume's pod; all
//! objects or none become a snapshot; each step ends by the request's deadline. Called by the volume's owner.

use std::sync::Arc;
use std::time::Duration;

use sotto_core::audit::AuditAction;
use sotto_core::identity::{Audience, StoreName};
use sotto_core::secret::SecretString;
use sotto_core::snapshot::{Generation, Object, Snapshot, SnapshotBuilder, SnapshotError};
use sotto_store::{Fetch, Lease, StoreSession, VolumePlan};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::continuing::Beginning;
use super::error::{ObjectFault, VolumeError};
use super::gate::Passed;
use super::held::Held;
use super::report;
use super::request::{Brought, Shown, VolumeSpec};
use super::settings::{Planned, Settings};
use crate::audit::VolumeAudit;
use crate::classes::ClassNow;
use crate::token::{TokenMap, VerifiedToken};

/// One attempt to prepare a volume.
pub(super) struct Preparation {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: Arc<VolumeSpec>,
    pub(super) audit: VolumeAudit,
    pub(super) end: Instant,
    pub(super) deadline: Duration,
    pub(super) shown: Shown,
    /// Those that come with the class, once it was read.
    pub(super) settings: Arc<Settings>,
    pub(super) cancel: CancellationToken,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) result: Result<Held, VolumeError>,
    /// A login that leads to nothing: to be revoked.
    pub(super) orphan: Option<StoreSession>,
}

impl From<VolumeError> for Outcome {
    fn from(error: VolumeError) -> Self {
        Self { result: Err(error), orphan: None }
    }
}

impl Preparation {
    pub(super) async fn run(mut self, brought: Arc<Brought>) -> Outcome {
        let Planned { settings, class, plan } = match self.plan().await {
            Ok(planned) => planned,
            Err(error) => return error.into(),
        };
        self.settings = Arc::clone(&settings);
        self.audit.set_store(&plan.store);
        let (session, _turn) = match self.login(&plan, &brought.tokens).await {
            Ok(login) => login,
            Err(error) => return error.into(),
        };
        session.take_publish_secrets(brought.publish_secrets());
        drop(brought);
        let fetched = self.fetch(&plan, &session).await;
        self.audit.decided(AuditAction::Fetch, fetched.as_ref().err().map(ToString::to_string));
        match fetched {
            Ok((plan, beginning, leases)) => {
                let now = self.shared.services.clock.now();
                let policy = settings.policy(&self.spec);
                let planned = Planned { settings, class, plan };
                let held = Held::new(planned, session, beginning, leases, policy, now);
                Outcome { result: Ok(held), orphan: None }
            }
            Err(error) => Outcome { result: Err(error), orphan: Some(session) },
        }
    }

    async fn plan(&self) -> Result<Planned, VolumeError> {
        let services = &self.shared.services;
        let given = services.classes.class_now(&self.spec.identity.namespace, &self.spec.class);
        let given = self.until("the SecretProviderClass was not read", given).await??;
        let ClassNow { class, settings } = given;
        report::secret_objects(&self.shared, &self.spec, &class);
        let settings = settings.unwrap_or_else(|| Arc::clone(&services.settings));
        let planned = Planned::of(settings, class, &self.spec)
            .inspect_err(|error| self.audit.decided(AuditAction::Fetch, Some(error.to_string())))?;
        report::plan_warnings(&self.shared, &self.spec, &planned.plan.warnings);
        Ok(planned)
    }

    async fn login(
        &self,
        plan: &VolumePlan,
        tokens: &[u8],
    ) -> Result<(StoreSession, Passed), VolumeError> {
        let wanted = (&plan.store, &plan.audience);
        let verified = verify(&self.shared, &self.spec, &self.audit, tokens, wanted);
        let token = self.until("the pod's token was not verified", verified).await??;
        // A plan names a store of the same set.
        let gate = self.settings.gate(&plan.store);
        let gate = gate.ok_or_else(|| VolumeError::NoSuchStore(plan.store.clone()))?;
        let turn = self.until("no turn to fetch came", gate.try_for_publish()).await?;
        // Nobody closes the semaphore.
        let turn = turn.map_err(|_| VolumeError::ShuttingDown)?;
        let session = self.log_in_with(plan, &token.jwt).await.inspect_err(|error| {
            self.audit.decided(AuditAction::Fetch, Some(error.to_string()));
        })?;
        Ok((session, turn))
    }

    async fn log_in_with(
        &self,
        plan: &VolumePlan,
        jwt: &SecretString,
    ) -> Result<StoreSession, VolumeError> {
        let Some(store) = self.settings.stores.get(&plan.store) else {
            // A plan names a store of the same set.
            return Err(VolumeError::NoSuchStore(plan.store.clone()));
        };
        // Not given up when the volume is released: the token that it brings must be revoked.
        let login = tokio::time::timeout_at(self.end, store.login(plan, jwt)).await;
        let login = login.map_err(|_| self.late("the store did not answer the login"))?;
        let result = login.as_ref().map(drop);
        self.shared.count_login(&plan.store, result);
        if let Some(gate) = self.settings.gate(&plan.store) {
            gate.logged_in(result);
        }
        login.map_err(VolumeError::Login)
    }

    async fn fetch(
        &self,
        plan: &VolumePlan,
        session: &StoreSession,
    ) -> Result<(VolumePlan, Beginning, Vec<Lease>), VolumeError> {
        let fetched = self.until("the secrets were not fetched", session.fetch(plan)).await?;
        if let Some(gate) = self.settings.gate(&plan.store) {
            gate.fetched(Some(&fetched));
        }
        let leases = fetched.leases.clone();
        let objects = fetched_objects(&self.spec, plan, fetched)?;
        // A provider names its files in its answer.
        let plan = plan.clone().naming(&objects);
        let beginning = self.beginning(&plan, session, objects).await?;
        Ok((plan, beginning, leases))
    }

    pub(super) fn build(
        &self,
        generation: Generation,
        objects: Vec<Object>,
    ) -> Result<Snapshot, SnapshotError> {
        let services = &self.shared.services;
        let builder = SnapshotBuilder::new(self.settings.limits);
        let mut builder = if self.spec.optional { builder.or_empty() } else { builder };
        objects.into_iter().try_for_each(|object| builder.add(object))?;
        let (created, group) = (services.clock.now(), self.spec.group);
        builder.build(generation, created, group, &*services.memory)
    }

    /// Waits until the work is done, the deadline is over, or the volume is released.
    pub(super) async fn until<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, VolumeError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(VolumeError::Released(self.spec.volume.clone())),
            done = tokio::time::timeout_at(self.end, work) => done.map_err(|_| self.late(what)),
        }
    }

    fn late(&self, what: &'static str) -> VolumeError {
        VolumeError::Deadline { what, deadline: self.deadline }
    }
}

/// All objects of a fetch, but for absent ones where the pod's author allows that.
pub(super) fn fetched_objects(
    spec: &VolumeSpec,
    plan: &VolumePlan,
    fetched: Fetch,
) -> Result<Vec<Object>, VolumeError> {
    let mut objects = Vec::with_capacity(fetched.objects.len());
    let mut faults = Vec::new();
    for (index, object) in fetched.objects.into_iter().enumerate() {
        match object {
            Ok(object) => objects.push(object),
            Err(error) if spec.optional && error.is_absence() => {
                tracing::info!(volume = %spec.volume, %error, "an object is left out");
            }
            Err(error) => {
                let name = plan.objects.get(index).map(|object| object.path.to_string());
                faults.push(ObjectFault { index, name: name.unwrap_or_default(), error });
            }
        }
    }
    if !faults.is_empty() {
        return Err(VolumeError::Objects(faults));
    }
    Ok(objects)
}

/// Picks the token for the store's audience and verifies it against the volume's pod; audited either way.
pub(super) async fn verify(
    shared: &Shared,
    spec: &VolumeSpec,
    audit: &VolumeAudit,
    tokens: &[u8],
    (store, audience): (&StoreName, &Audience),
) -> Result<VerifiedToken, VolumeError> {
    let verified = async {
        let token = TokenMap::parse(tokens)?.take(audience)?;
        let token = shared.services.verifier.verify(token, audience, &spec.identity).await?;
        shared.services.reviews.review(store, &token.jwt, audience, &spec.identity).await?;
        Ok(token)
    };
    let verified: Result<VerifiedToken, VolumeError> = verified.await;
    audit.decided(AuditAction::VerifyToken, verified.as_ref().err().map(ToString::to_string));
    verified
}
