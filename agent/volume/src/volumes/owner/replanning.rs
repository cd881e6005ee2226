//! A SecretProviderClass that was edited, or settings of its store that have changed: the volume turns to what they
//! say now, at its next refresh.
//!
//! Invariant: all objects of the new plan or none; while they can't be had the volume goes on as it was, and the pod's
//! author is told why. A login is good for the stores that it was made with: others get one of their own, and the
//! former one is revoked where it was made. What can't be brought about is a token for another audience, which only
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
use sotto_store::{Lease, StoreSession, VolumePlan};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::super::demand::Refreshed;
use super::super::error::VolumeError;
use super::super::gate::Gate;
use super::super::prepare::fetched_objects;
use super::super::report;
use super::super::settings::{Planned, Settings};
use super::super::turn::Turn;
use super::super::turning::Turning;
use super::super::{Shared, request::VolumeSpec};
use super::ending::revoke;
use super::{Done, Owner, State};
use crate::classes::{ClassError, ClassNow};

/// How long the fetch may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a look at the class may keep the volume's refreshes waiting.
const CLASS_DEADLINE: Duration = Duration::from_secs(10);

/// What is followed, in words.
const CLASS_EDITED: &str = "the SecretProviderClass was edited";
const SETTINGS_CHANGED: &str = "the store's settings have changed";

/// An edit is tried again after 1, 2, 4 ... refreshes, at most this many.
const MOST_WAIT: u32 = 32;

/// An edit that couldn't be followed. It may have read credentials beside what failed, and they are thrown away:
/// so it is not tried at each refresh.
pub(in super::super) struct FailedEdit {
    class: Arc<SecretProviderClass>,
    settings: Arc<Settings>,
    wait: u32,
    left: u32,
}

impl FailedEdit {
    fn after(
        before: Option<Self>,
        class: &Arc<SecretProviderClass>,
        settings: &Arc<Settings>,
    ) -> Self {
        let before = before.filter(|it| it.is_of(class, settings));
        let wait = before.map_or(1, |it| it.wait.saturating_mul(2).min(MOST_WAIT));
        Self { class: Arc::clone(class), settings: Arc::clone(settings), wait, left: wait }
    }

    fn is_of(&self, class: &SecretProviderClass, settings: &Arc<Settings>) -> bool {
        *self.class == *class && Arc::ptr_eq(&self.settings, settings)
    }

    /// Whether this refresh goes by without another try.
    fn waits(&mut self, class: &SecretProviderClass, settings: &Arc<Settings>) -> bool {
        if !self.is_of(class, settings) {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }
}

/// What the volume shows from now on.
pub(super) struct Replanned {
    planned: Planned,
    /// A login of its own, where the class names another role, mount or namespace, or the store is another one.
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
            let class = shared.services.classes.class_now(namespace, &spec.class);
            let unread =
                |_| Err(ClassError::Unavailable { reason: "no answer in time".to_owned() });
            Done::Class(tokio::time::timeout(CLASS_DEADLINE, class).await.unwrap_or_else(unread))
        }));
        true
    }

    pub(super) fn class_seen(&mut self, given: Result<ClassNow, ClassError>) {
        // Also where its server has failed meanwhile: the next one finds nothing under way.
        let Some(held) = self.state.held_mut() else { return };
        (held.is_busy, held.has_class_seen) = (false, true);
        let State::Serving { held } = &mut self.state else { return };
        let ClassNow { class, settings } = match given {
            Ok(given) => given,
            // A class that can't be read, or was deleted, takes nothing away from who has it.
            Err(error) => {
                return tracing::debug!(volume = %self.spec.volume, %error, "the class is not read");
            }
        };
        let settings = settings.unwrap_or_else(|| Arc::clone(&self.shared.services.settings));
        let is_same = *class == *held.class;
        if is_same && Arc::ptr_eq(&settings, &held.settings) || held.pending.is_some() {
            return;
        }
        if is_same && settings.has_stores_of(&held.settings) {
            return self.adopt(settings);
        }
        // The edit waits with the refreshes of the store.
        let is_open = settings.gate(&held.plan.store).is_some_and(|gate| gate.is_open());
        let waits = !held.demand.is_wanted()
            && held.failed_edit.as_mut().is_some_and(|it| it.waits(&class, &settings));
        if !is_open && !waits {
            self.replan(class, settings);
        }
    }

    /// Other limits or times, for what is shown as it is.
    fn adopt(&mut self, settings: Arc<Settings>) {
        let State::Serving { held } = &mut self.state else { return };
        held.plan = Arc::new(VolumePlan { limits: settings.limits, ..(*held.plan).clone() });
        held.turning.follow(settings.policy(&self.spec));
        (held.settings, held.failed_edit) = (settings, None);
        self.leave_values();
        tracing::info!(volume = %self.spec.volume, "the administrator's limits or times have changed: they count from now on");
    }

    fn replan(&mut self, class: Arc<SecretProviderClass>, settings: Arc<Settings>) {
        let State::Serving { held } = &mut self.state else { return };
        held.is_busy = true;
        held.failed_edit = Some(FailedEdit::after(held.failed_edit.take(), &class, &settings));
        held.demand.begin();
        let (shared, spec) = (Arc::clone(&self.shared), Arc::clone(&self.spec));
        let old = Old {
            settings: Arc::clone(&held.settings),
            plan: Arc::clone(&held.plan),
            session: Arc::clone(&held.session),
        };
        let token =
            self.pod_token.verified().map(|token| SecretString::new(token.expose().to_owned()));
        let (told, outcome) = oneshot::channel();
        let cancel = self.cancel.clone();
        // Not given up when the volume ends: the token that a login brings must be revoked.
        self.shared.services.drain.spawn(async move {
            let replanned =
                replanned(&shared, &spec, (class, settings), &old, (token, cancel)).await;
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
        if let Some(held) = self.state.held_mut() {
            held.is_busy = false;
        }
        let State::Serving { held } = &mut self.state else {
            // Its server has failed meanwhile: the next one's refresh tries again.
            let orphan = replanned.ok().and_then(|it| it.session);
            return orphan.into_iter().for_each(|orphan| revoke_later(&self.shared, orphan));
        };
        self.audit.decided(AuditAction::Fetch, replanned.as_ref().err().map(ToString::to_string));
        let is_same = held.failed_edit.as_ref().is_some_and(|edit| *edit.class == *held.class);
        let what = if is_same { SETTINGS_CHANGED } else { CLASS_EDITED };
        let Replanned { planned, session, objects, leases } = match replanned {
            Ok(replanned) => replanned,
            Err(error) => return self.edit_failed(what, &error),
        };
        let refused: Vec<ObjectPath> = held.turning.refused_paths(&held.plan);
        let next = match self.build(objects, planned.settings.limits) {
            Ok(next) => next,
            Err(error) => {
                if let Some(orphan) = session {
                    revoke_later(&self.shared, orphan);
                }
                return self.edit_failed(what, &error.into());
            }
        };
        let State::Serving { held } = &mut self.state else { return };
        let policy = planned.settings.policy(&self.spec);
        let token =
            self.pod_token.verified().map(|token| SecretString::new(token.expose().to_owned()));
        held.go_over(planned, session, token.as_ref());
        held.failed_edit = None;
        let token = held.session.token_life();
        held.begin_anew(Turning::new(policy, &held.plan, leases, next.generation(), token));
        // It may have been edited again.
        held.has_class_seen = false;
        held.demand.ended(Refreshed::Changed, false);
        if held.demand.is_wanted() && !held.turning.refresh_now() {
            held.demand.share();
        }
        if let Some(token) = self.pod_token.verified() {
            // A fresher one may have come meanwhile.
            held.session.renew_identity(token);
        }
        self.audit.set_store(&held.plan.store);
        tracing::info!(volume = %self.spec.volume, "{what}: the volume turns to what it says now");
        // With the turn's beginning both logins are left to the next worker; with its end the former one is revoked.
        self.turn(Turn { next: Some(next), heal: refused, open: true, ..Turn::default() });
    }

    fn edit_failed(&mut self, what: &str, error: &VolumeError) {
        if let State::Serving { held } = &mut self.state {
            held.demand.ended(Refreshed::of_failed_edit(error), true);
        }
        report::class_edit_failed(&self.shared, &self.spec, what, error);
    }
}

/// What the volume has.
struct Old {
    settings: Arc<Settings>,
    plan: Arc<VolumePlan>,
    session: Arc<StoreSession>,
}

impl Old {
    /// Whether its login is good for the other plan.
    fn is_good_for(&self, new: &Planned) -> bool {
        let login = |plan: &VolumePlan| plan.source.openbao().map(|source| source.login.clone());
        // A provider logs in with each call, and is told of the class each time: its session is of the class.
        new.settings.has_stores_of(&self.settings)
            && new.plan.store == self.plan.store
            && login(&new.plan).is_some()
            && login(&new.plan) == login(&self.plan)
    }
}

async fn replanned(
    shared: &Shared,
    spec: &VolumeSpec,
    (class, settings): (Arc<SecretProviderClass>, Arc<Settings>),
    old: &Old,
    (token, cancel): (Option<SecretString>, CancellationToken),
) -> Result<Replanned, VolumeError> {
    let Planned { settings, class, plan } = Planned::of(settings, class, spec)?;
    report::plan_warnings(shared, spec, &plan.warnings);
    let gate = settings.gate(&plan.store);
    let gate = gate.ok_or_else(|| VolumeError::NoSuchStore(plan.store.clone()))?;
    let late = |_| late("no turn to fetch came");
    let turn = tokio::time::timeout(DEADLINE, gate.try_for_publish()).await.map_err(late)?;
    let _turn = turn.map_err(|_| VolumeError::ShuttingDown)?;
    let planned = Planned { settings: Arc::clone(&settings), class, plan };
    let own = if old.is_good_for(&planned) {
        None
    } else {
        Some(logged_in(spec, &planned, &old.plan, token, gate).await?)
    };
    let Planned { class, plan, .. } = planned;
    let fetch = fetched(spec, &plan, own.as_ref().unwrap_or(&old.session), gate);
    let fetched = tokio::select! {
        biased;
        // Nobody waits for values any more; what is left of the time is for the login's end.
        () = cancel.cancelled() => Err(VolumeError::Released(spec.volume.clone())),
        fetched = fetch => fetched,
    };
    match fetched {
        Ok((objects, leases)) => {
            let plan = plan.naming(&objects);
            let planned = Planned { settings: Arc::clone(&settings), class, plan };
            Ok(Replanned { planned, session: own, objects, leases })
        }
        Err(error) => {
            if let Some(orphan) = own {
                let _ = revoke(&orphan, shared.services.deadlines.revoke).await;
            }
            Err(error)
        }
    }
}

async fn logged_in(
    spec: &VolumeSpec,
    Planned { settings, plan, .. }: &Planned,
    old: &VolumePlan,
    token: Option<SecretString>,
    gate: &Gate,
) -> Result<StoreSession, VolumeError> {
    if plan.audience != old.audience {
        return Err(VolumeError::OtherAudience { audience: plan.audience.clone() });
    }
    let store = settings.stores.get(&plan.store);
    let store = store.ok_or_else(|| VolumeError::NoSuchStore(plan.store.clone()))?;
    let token = token.ok_or_else(|| VolumeError::NotReady(spec.volume.clone()))?;
    let login = store.login(plan, &token).await;
    gate.logged_in(login.as_ref().map(drop));
    login.map_err(VolumeError::Login)
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

fn revoke_later(shared: &Shared, session: StoreSession) {
    let deadline = shared.services.deadlines.revoke;
    shared.services.drain.spawn(async move {
        let _ = revoke(&session, deadline).await;
    });
}

/// Revokes the login of an edit that was done when its volume ended, and not yet turned to.
pub(super) fn end_orphan(shared: &Shared, work: &mut FuturesUnordered<BoxFuture<'static, Done>>) {
    while let Some(Some(done)) = work.next().now_or_never() {
        if let Done::Replanned(replanned) = done {
            let orphan = replanned.ok().and_then(|it| it.session);
            orphan.into_iter().for_each(|orphan| revoke_later(shared, orphan));
        }
    }
}

fn late(what: &'static str) -> VolumeError {
    VolumeError::Deadline { what, deadline: DEADLINE }
}

impl Turning {
    /// What is refused, by its paths.
    fn refused_paths(&self, plan: &VolumePlan) -> Vec<ObjectPath> {
        let refused: BTreeSet<usize> = self.refused().collect();
        refused.iter().filter_map(|at| plan.objects.get(*at)).map(|it| it.path.clone()).collect()
    }
}
