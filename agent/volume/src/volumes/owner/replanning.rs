//! A SecretProviderClass that was edited: the volume turns to what it says now, at its next refresh.
//!
//! Invariant: all objects of the new class or none; while they can't be had the volume goes on as the class was,
//! and the pod's author is told why. What an edit can't bring about is a token for another audience, which only
//! kubelet gives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use sotto_core::audit::AuditAction;
use sotto_core::class::SecretProviderClass;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretString;
use sotto_core::snapshot::Object;
use sotto_store::{Lease, StoreSession, VolumePlan, grammar};
use tokio::sync::oneshot;

use super::super::error::VolumeError;
use super::super::gate::Gate;
use super::super::prepare::{fetched_objects, policy};
use super::super::report;
use super::super::turn::Turn;
use super::super::turning::Turning;
use super::super::{Shared, request::VolumeSpec};
use super::ending::revoke;
use super::{Done, Owner, State};
use crate::classes::ClassError;

/// How long the fetch may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a look at the class may keep the volume's refreshes waiting.
const CLASS_DEADLINE: Duration = Duration::from_secs(10);

/// An edit is tried again after 1, 2, 4 ... refreshes, at most this many.
const MOST_WAIT: u32 = 32;

/// An edit that couldn't be followed. It may have read credentials beside what failed, and they are thrown away:
/// so it is not tried at each refresh.
pub(in super::super) struct FailedEdit {
    class: Arc<SecretProviderClass>,
    wait: u32,
    left: u32,
}

impl FailedEdit {
    fn after(before: Option<Self>, class: Arc<SecretProviderClass>) -> Self {
        let before = before.filter(|it| *it.class == *class);
        let wait = before.map_or(1, |it| it.wait.saturating_mul(2).min(MOST_WAIT));
        Self { class, wait, left: wait }
    }

    /// Whether this refresh goes by without another try.
    fn waits(&mut self, class: &SecretProviderClass) -> bool {
        if *self.class != *class {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }
}

/// What the volume shows from now on.
pub(super) struct Replanned {
    class: Arc<SecretProviderClass>,
    plan: VolumePlan,
    /// A login of its own, where the class names another role, mount or namespace.
    session: Option<StoreSession>,
    objects: Vec<Object>,
    leases: Vec<Lease>,
}

impl Owner {
    /// Reads the class before a refresh that is due. True: the refresh waits for that.
    pub(super) fn looks_at_class(&mut self) -> bool {
        let State::Serving { held } = &mut self.state else { return false };
        if std::mem::replace(&mut held.has_class_seen, false) {
            return false;
        }
        held.is_busy = true;
        let (shared, spec) = (Arc::clone(&self.shared), Arc::clone(&self.spec));
        self.work.push(Box::pin(async move {
            let namespace = &spec.identity.namespace;
            let class = shared.services.classes.class(namespace, &spec.class);
            let unread =
                |_| Err(ClassError::Unavailable { reason: "no answer in time".to_owned() });
            Done::Class(tokio::time::timeout(CLASS_DEADLINE, class).await.unwrap_or_else(unread))
        }));
        true
    }

    pub(super) fn class_seen(&mut self, class: Result<Arc<SecretProviderClass>, ClassError>) {
        let State::Serving { held } = &mut self.state else { return };
        (held.is_busy, held.has_class_seen) = (false, true);
        match class {
            // A class that can't be read, or was deleted, takes nothing away from who has it.
            Err(error) => {
                tracing::debug!(volume = %self.spec.volume, %error, "the class is not read")
            }
            Ok(class) if *class == *held.class || held.pending.is_some() => {}
            // The edit waits with the refreshes of the store.
            Ok(_) if self.shared.gates.of(&held.plan.store).is_some_and(|gate| gate.is_open()) => {}
            Ok(class)
                if !held.demand.is_wanted()
                    && held.failed_edit.as_mut().is_some_and(|it| it.waits(&class)) => {}
            Ok(class) => self.replan(class),
        }
    }

    fn replan(&mut self, class: Arc<SecretProviderClass>) {
        let State::Serving { held } = &mut self.state else { return };
        held.is_busy = true;
        held.failed_edit = Some(FailedEdit::after(held.failed_edit.take(), Arc::clone(&class)));
        let (shared, spec) = (Arc::clone(&self.shared), Arc::clone(&self.spec));
        let (old, session) = (Arc::clone(&held.plan), Arc::clone(&held.session));
        let token =
            self.pod_token.verified().map(|token| SecretString::new(token.expose().to_owned()));
        let (told, outcome) = oneshot::channel();
        // Not given up when the volume ends: the token that a login brings must be revoked.
        self.shared.services.drain.spawn(async move {
            let replanned = replanned(&shared, &spec, class, (&old, &session), token).await;
            if let Err(Ok(Replanned { session: Some(orphan), .. })) = told.send(replanned) {
                let _ = revoke(&orphan, shared.services.deadlines.revoke).await;
            }
        });
        self.work.push(Box::pin(async move {
            let ended = |_| Err(VolumeError::ShuttingDown);
            Done::Replanned(Box::new(outcome.await.unwrap_or_else(ended)))
        }));
    }

    pub(super) fn replanned(&mut self, replanned: Result<Replanned, VolumeError>) {
        let State::Serving { held } = &mut self.state else { return };
        held.is_busy = false;
        self.audit.decided(AuditAction::Fetch, replanned.as_ref().err().map(ToString::to_string));
        let replanned = match replanned {
            Ok(replanned) => replanned,
            Err(error) => return report::class_edit_failed(&self.shared, &self.spec, &error),
        };
        let Replanned { class, plan, session, objects, leases } = replanned;
        let refused: Vec<ObjectPath> = held.turning.refused_paths(&held.plan);
        let next = match self.build(objects) {
            Ok(next) => next,
            Err(error) => {
                if let Some(orphan) = session {
                    revoke_later(&self.shared, Arc::new(orphan));
                }
                return report::class_edit_failed(&self.shared, &self.spec, &error.into());
            }
        };
        let State::Serving { held } = &mut self.state else { return };
        let old = session.map(|new| std::mem::replace(&mut held.session, Arc::new(new)));
        let (policy, token) = (policy(&self.shared, &self.spec), held.session.token_life());
        held.turning = Turning::new(policy, &plan, leases, next.generation(), token);
        (held.class, held.plan, held.failed_edit) = (class, Arc::new(plan), None);
        tracing::info!(volume = %self.spec.volume, "the class was edited: the volume turns to what it says now");
        self.turn(Turn { next: Some(next), heal: refused, open: true, ..Turn::default() });
        // With the turn's beginning the new login is left to the next worker: until then it needs the old one.
        if let Some(old) = old {
            revoke_later(&self.shared, old);
        }
    }
}

async fn replanned(
    shared: &Shared,
    spec: &VolumeSpec,
    class: Arc<SecretProviderClass>,
    (old, session): (&VolumePlan, &StoreSession),
    token: Option<SecretString>,
) -> Result<Replanned, VolumeError> {
    let services = &shared.services;
    let plan = grammar::plan(&class, &spec.identity, &services.stores, &services.limits)
        .map_err(|errors| VolumeError::Plan { class: spec.class.clone(), errors })?;
    report::plan_warnings(shared, spec, &plan.warnings);
    let gate = shared.gates.of(&plan.store);
    let gate = gate.ok_or_else(|| VolumeError::NoSuchStore(plan.store.clone()))?;
    let late = |_| late("no turn to fetch came");
    let turn = tokio::time::timeout(DEADLINE, gate.try_for_publish()).await.map_err(late)?;
    let _turn = turn.map_err(|_| VolumeError::ShuttingDown)?;
    let own = if is_of_login(&plan, old) {
        None
    } else {
        if plan.audience != old.audience {
            return Err(VolumeError::OtherAudience { audience: plan.audience });
        }
        let store = services.stores.get(&plan.store);
        let store = store.ok_or_else(|| VolumeError::NoSuchStore(plan.store.clone()))?;
        let token = token.ok_or_else(|| VolumeError::NotReady(spec.volume.clone()))?;
        let login = store.login(&plan, &token).await;
        gate.logged_in(login.as_ref().map(drop));
        Some(login.map_err(VolumeError::Login)?)
    };
    match fetched(spec, &plan, own.as_ref().unwrap_or(session), gate).await {
        Ok((objects, leases)) => {
            let plan = plan.naming(&objects);
            Ok(Replanned { class, plan, session: own, objects, leases })
        }
        Err(error) => {
            if let Some(orphan) = own {
                let _ = revoke(&orphan, shared.services.deadlines.revoke).await;
            }
            Err(error)
        }
    }
}

async fn fetched(
    spec: &VolumeSpec,
    plan: &VolumePlan,
    session: &StoreSession,
    gate: &Gate,
) -> Result<(Vec<Object>, Vec<Lease>), VolumeError> {
    let fetch = tokio::time::timeout(DEADLINE, session.fetch(plan)).await;
    gate.fetched(fetch.as_ref().ok());
    let fetch = fetch.map_err(|_| late("its secrets were not fetched"))?;
    let leases = fetch.leases.clone();
    Ok((fetched_objects(spec, plan, fetch)?, leases))
}

fn revoke_later(shared: &Shared, session: Arc<StoreSession>) {
    let deadline = shared.services.deadlines.revoke;
    shared.services.drain.spawn(async move {
        let _ = revoke(&session, deadline).await;
    });
}

/// The login of an edit that was done when its volume ended, and not yet turned to.
pub(super) fn orphan(
    work: &mut FuturesUnordered<BoxFuture<'static, Done>>,
) -> Option<StoreSession> {
    while let Some(Some(done)) = work.next().now_or_never() {
        if let Done::Replanned(replanned) = done {
            return replanned.ok().and_then(|it| it.session);
        }
    }
    None
}

fn late(what: &'static str) -> VolumeError {
    VolumeError::Deadline { what, deadline: DEADLINE }
}

/// Whether the login of one plan is good for the other.
fn is_of_login(new: &VolumePlan, old: &VolumePlan) -> bool {
    let login = |plan: &VolumePlan| plan.source.openbao().map(|source| source.login.clone());
    // A provider logs in with each call, and is told of the class each time: its session is of the class.
    new.store == old.store && login(new).is_some() && login(new) == login(old)
}

impl Turning {
    /// What is refused, by its paths.
    fn refused_paths(&self, plan: &VolumePlan) -> Vec<ObjectPath> {
        let refused: BTreeSet<usize> = self.refused().collect();
        refused.iter().filter_map(|at| plan.objects.get(*at)).map(|it| it.path.clone()).collect()
    }
}
