//! What the owner does about time: leases, refreshes, turns, and the end of old generations; one at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::audit::AuditAction;
use sotto_core::limits::Limits;
use sotto_core::snapshot::{Generation, Object, Snapshot, SnapshotBuilder, SnapshotError};
use tokio::time::Instant;

use super::super::demand::Refreshed;
use super::super::held::{GRACE, Held};
use super::super::report;
use super::super::showing::Showing;
use super::super::turn::{Mount, Turn, TurnError};
use super::super::turning::Consequence;
use super::asking::Attempt;
use super::{Done, Owner, State};
use crate::driver::DriverCallError;

/// Until a turn that failed is tried again, and again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(5);

/// A turn that ended, with the generation that it left.
pub(super) struct Turned {
    pub(super) turn: Turn,
    pub(super) result: Result<Option<Generation>, TurnError>,
}

/// An old generation that was to go.
pub(super) struct Retired {
    pub(super) generation: Generation,
    pub(super) result: Result<bool, DriverCallError>,
}

impl Held {
    /// When [`Owner::wake`] has something to do.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.is_busy {
            return None;
        }
        let retry = self.pending.as_ref().map(|(at, _)| *at);
        let old = self.old.front().map(|(at, _)| *at);
        [self.turning.wake_at(), retry, old].into_iter().flatten().min()
    }
}

impl Owner {
    /// Does the first thing that is due; what takes time comes back as a [`Done`].
    pub(super) fn wake(&mut self) {
        let State::Serving { held } = &mut self.state else { return };
        let now = Instant::now();
        if held.pending.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, turn)) = held.pending.take()
        {
            return self.turn(turn);
        }
        // In turns with refreshes, so that neither waits for the other for ever.
        let is_refreshs_turn = std::mem::take(&mut held.has_retired) && held.turning.is_due();
        if held.old.front().is_some_and(|(at, _)| *at <= now && !is_refreshs_turn)
            && let Some((_, generation)) = held.old.pop_front()
        {
            held.has_retired = true;
            return self.retire(generation);
        }
        let steps = held.turning.leases_due();
        if !steps.is_nothing() {
            return self.prolong(steps);
        }
        let consequence = held.turning.pass();
        if consequence.became.is_some() || consequence.close {
            held.not_fresh.follow(&self.shared.services.metrics, held.turning.freshness());
            held.show_status(self.shared.services.clock.now());
            report::aged(&self.shared, &self.spec, &consequence);
        }
        if !consequence.is_nothing() {
            return self.follow(consequence);
        }
        if !held.turning.is_due() || self.looks_at_class() {
            return;
        }
        let State::Serving { held } = &mut self.state else { return };
        let Some(asked) = held.turning.due() else { return };
        held.demand.begin();
        if asked.is_empty() {
            self.fetched(&asked, Attempt::of_nothing());
        } else {
            self.refresh(asked);
        }
    }

    fn retire(&mut self, generation: Generation) {
        let mount = self.mount();
        let State::Serving { held } = &mut self.state else { return };
        held.is_busy = true;
        let hidden = held.hidden.clone();
        self.work.push(Box::pin(async move {
            let Some(mount) = mount else { return Done::Nothing };
            let result = mount.retire(generation, &hidden).await;
            Done::Retired(Retired { generation, result })
        }));
    }

    pub(super) fn fetched(&mut self, asked: &BTreeSet<usize>, attempt: Attempt) {
        let optional = self.spec.optional;
        let Some(held) = self.state.held_mut() else { return };
        held.is_busy = false;
        // While nobody serves, effects could not be carried out: the next server finds the refresh due.
        let State::Serving { held } = &mut self.state else { return };
        let current = held.tree.current();
        let (fetched, wait, was_asked) = attempt.parts();
        let plan = Arc::clone(&held.plan);
        let token = held.session.token_life();
        let mut consequence =
            held.turning.observe(asked, fetched, optional, token, &plan, &current);
        if !was_asked && consequence.outage.is_some() {
            let why = "not asked: it failed other volumes, and is tried for one of them";
            consequence.outage = Some(why.to_owned());
        }
        if let Some(wait) = wait {
            held.turning.wait(wait);
        }
        held.show_status(self.shared.services.clock.now());
        report::aged(&self.shared, &self.spec, &consequence);
        self.refreshed(was_asked, &consequence);
        if !consequence.is_nothing() {
            self.follow(consequence);
        }
    }

    /// Makes a turn of what follows from a refresh or from age.
    fn follow(&mut self, mut consequence: Consequence) {
        let mount = self.mount();
        let State::Serving { held } = &mut self.state else { return };
        let paths = |indexes: &[usize]| {
            indexes.iter().map(|index| held.plan.objects[*index].path.clone()).collect::<Vec<_>>()
        };
        let (refuse, heal) = (paths(&consequence.refuse), paths(&consequence.heal));
        for path in &refuse {
            let reason = format!("the store refuses {path} now, confirmed once");
            report::refused(&self.shared, &self.spec, &reason);
            self.audit.decided(AuditAction::Fetch, Some(reason));
        }
        if consequence.close {
            let reason = "the last good values are too old".to_owned();
            self.audit.decided(AuditAction::Fetch, Some(reason));
        }
        let mut turn = Turn { close: consequence.close, refuse, ..Turn::default() };
        let limits = held.settings.limits;
        if let (Some((_, pending)), Some(mount)) = (&mut held.pending, &mount) {
            if turn.close || !turn.refuse.is_empty() {
                pending.bereave(&turn, mount);
            }
            held.turning.owe(&consequence);
            let plan = Arc::clone(&held.plan);
            held.turning.keep_back(&mut consequence, &plan);
        } else if let Some(objects) = consequence.next.take() {
            match self.build(objects, limits) {
                Ok(next) => {
                    turn = Turn { next: Some(next), heal, open: consequence.open, ..turn };
                    self.audit.decided(AuditAction::Fetch, None);
                }
                Err(error) => {
                    tracing::warn!(volume = %self.spec.volume, %error, "new values can't be served");
                    if let State::Serving { held } = &mut self.state {
                        held.turning.owe(&consequence);
                        held.demand.ended(Refreshed::Unservable, false);
                    }
                }
            }
        }
        self.turn(turn);
    }

    pub(super) fn build(
        &mut self,
        objects: Vec<Object>,
        limits: Limits,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let services = &self.shared.services;
        let builder = SnapshotBuilder::new(limits);
        let mut builder = if self.spec.optional { builder.or_empty() } else { builder };
        objects.into_iter().try_for_each(|object| builder.add(object))?;
        let generation = match &mut self.state {
            State::Serving { held } => held.turning.next_generation(),
            State::Preparing { .. } | State::Ready { .. } => None,
        };
        let (created, group) = (services.clock.now(), self.spec.group);
        let generation = generation.ok_or(SnapshotError::Empty)?;
        Ok(Arc::new(builder.build(generation, created, group, &*services.memory)?))
    }

    pub(super) fn turn(&mut self, mut turn: Turn) {
        let mount = self.mount();
        let State::Serving { held } = &mut self.state else { return };
        held.is_busy = true;
        held.staged = turn.next.clone();
        self.leave_values();
        self.work.push(Box::pin(async move {
            let Some(mount) = mount else { return Done::Nothing };
            let result = turn.run(&mount).await;
            Done::Turned(Box::new(Turned { turn, result }))
        }));
    }

    pub(super) fn turned(&mut self, turned: Turned) {
        let Some(held) = self.state.held_mut() else { return };
        held.is_busy = false;
        let Turned { mut turn, result } = turned;
        match result {
            Ok(left) => {
                held.staged = None;
                if turn.next.is_some() {
                    self.shared.count_rotation(true);
                }
                if held.pending.is_none() {
                    held.demand.shown();
                }
                let current = held.tree.current().generation();
                if let Some(left) = left.filter(|left| *left != current) {
                    let generation = current.get();
                    tracing::info!(volume = %self.spec.volume, generation, "turned");
                    held.turning.turned();
                    held.shows_current();
                    let Showing { versions, .. } = held.shown();
                    let reporter = &self.shared.services.reporter;
                    let spec = &self.spec;
                    reporter.served(&spec.identity, &spec.class, &spec.target_path, &versions);
                    held.old.push_back((Instant::now() + GRACE, left));
                }
            }
            Err(error) => {
                self.shared.count_rotation(false);
                tracing::warn!(volume = %self.spec.volume, %error, "a turn is tried again");
                (turn.close, turn.refuse) = (false, Vec::new());
                // What a former agent has half done makes the first one fail, and is gone with it.
                let pause = if turn.has_failed { RETRY } else { FIRST_RETRY };
                turn.has_failed = true;
                held.pending = Some((Instant::now() + pause, turn));
            }
        }
        held.show_status(self.shared.services.clock.now());
        self.part();
    }

    pub(super) fn retired(&mut self, retired: Retired) {
        let Some(held) = self.state.held_mut() else { return };
        held.is_busy = false;
        let Retired { generation, result } = retired;
        match result {
            Ok(true) if !held.hidden.contains(&generation) => held.hidden.push(generation),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(volume = %self.spec.volume, %error, "an old generation stays");
                held.old.push_front((Instant::now() + RETRY, generation));
            }
        }
    }

    fn mount(&self) -> Option<Mount> {
        let State::Serving { held } = &self.state else { return None };
        Some(Mount {
            volume: self.spec.volume.clone(),
            tree: Arc::clone(&held.tree),
            servers: held.servers.clone(),
            driver: self.shared.services.driver.clone(),
            memory: Arc::clone(&self.shared.services.memory),
        })
    }
}
