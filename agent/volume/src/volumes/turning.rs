//! One volume's way to new values: what a refresh brought, what follows from it, and the steps of a turn.
//!
//! Invariant: refuse, invalidate, wipe, in this order. A turn that could not be completed is kept and tried
//! again whole; all of its steps may be repeated. What was wiped is read again before it is served again.
//! Objects read under a lease or by another method than GET are read again only when they end: that makes
//! new credentials. For the same reason, such a value that came is never thrown away for another's failure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use sotto_core::rotation::{
    Effect, Freshness, Jitter, LONGEST_RETRY, ObjectResult, RefreshPolicy, Rotation,
};
use sotto_core::snapshot::{Generation, Object, Snapshot};
use sotto_store::session::TokenLife;
use sotto_store::{Fetch, Lease, VolumePlan};
use tokio::time::Instant;

use super::demand::Refreshed;
use super::held::Resumed;
use super::leasing::{Leasing, Prolonged, Steps};
use results::{outage, results};

mod assembly;
mod pace;
mod results;

/// What a volume does about time.
pub(super) struct Turning {
    rotation: Rotation,
    since: Instant,
    /// Refreshes begin on the beats of this clock.
    beats: Option<Instant>,
    leasing: Leasing,
    /// Objects that each refresh reads.
    readable: BTreeSet<usize>,
    /// Objects that a refresh reads anew, since what they were read under ends.
    expiring: BTreeSet<usize>,
    /// New credentials and the like that no generation shows yet.
    kept_back: BTreeMap<usize, Object>,
    /// Objects whose values are no longer in memory.
    wiped: BTreeSet<usize>,
    last: Generation,
    /// Objects of the plan.
    count: usize,
    /// What was to become readable with a generation that did not come about.
    owed: BTreeSet<usize>,
    is_opening_owed: bool,
}

/// What follows from a refresh.
#[derive(Default)]
pub(super) struct Consequence {
    /// Everything is to be refused: too old.
    pub(super) close: bool,
    /// These are to be refused.
    pub(super) refuse: Vec<usize>,
    /// Readable again once the next generation is there.
    pub(super) heal: Vec<usize>,
    /// [`Self::close`] ends once the next generation is there.
    pub(super) open: bool,
    /// The values became stale now, or fresh again.
    pub(super) became: Option<Freshness>,
    /// Why the attempt failed, if it did.
    pub(super) outage: Option<String>,
    /// What the attempt came to, if there was one.
    pub(super) result: Option<Refreshed>,
    /// The objects of the next generation, where there is one.
    pub(super) next: Option<Vec<Object>>,
    /// Those of them that were made for us: asked for again they would be others.
    issued: BTreeSet<usize>,
}

impl Consequence {
    pub(super) fn is_nothing(&self) -> bool {
        !self.close && self.refuse.is_empty() && self.next.is_none()
    }
}

impl Turning {
    pub(super) fn new(
        policy: RefreshPolicy,
        plan: &VolumePlan,
        leases: Vec<Lease>,
        generation: Generation,
        token: TokenLife,
    ) -> Self {
        Self::begun_at(Instant::now(), policy, plan, leases, generation, token)
    }

    fn begun_at(
        since: Instant,
        policy: RefreshPolicy,
        plan: &VolumePlan,
        leases: Vec<Lease>,
        generation: Generation,
        token: TokenLife,
    ) -> Self {
        let leased: BTreeSet<usize> =
            leases.iter().flat_map(|lease| lease.objects.iter().copied()).collect();
        let count = plan.objects.len();
        let readable = (0..count).filter(|index| plan.is_read(*index) && !leased.contains(index));
        Self {
            leasing: Leasing::new(since, leases, token),
            expiring: BTreeSet::new(),
            kept_back: BTreeMap::new(),
            readable: readable.collect(),
            rotation: Rotation::new(policy, count, Duration::ZERO, jitter()),
            since,
            beats: None,
            wiped: BTreeSet::new(),
            last: generation,
            count,
            owed: BTreeSet::new(),
            is_opening_owed: false,
        }
    }

    /// A volume that a former worker served.
    pub(super) fn resumed(
        policy: RefreshPolicy,
        plan: &VolumePlan,
        token: TokenLife,
        resumed: Resumed,
    ) -> Self {
        let Resumed { age, last, refused, is_closed, expiring, leases, .. } = resumed;
        let now = Instant::now();
        let confirmed = now.checked_sub(age).unwrap_or(now);
        // No age may be before the beginning.
        let begun = leases.iter().map(|lease| lease.life.since).chain([token.since, confirmed]);
        let since = begun.min().unwrap_or(now);
        let mut turning = Self::begun_at(since, policy, plan, leases, last, token);
        let asked = confirmed.saturating_duration_since(since);
        turning.rotation = Rotation::new(policy, turning.count, asked, jitter());
        turning.rotation.resume(&refused, is_closed);
        turning.readable.retain(|index| !expiring.contains(index));
        turning.wiped = if is_closed { (0..turning.count).collect() } else { refused };
        turning.expiring = expiring;
        if !turning.expiring.is_empty() {
            turning.attempt_now();
        }
        turning
    }

    /// Age of the last good values.
    pub(super) fn age(&self) -> Duration {
        self.rotation.age(self.since.elapsed())
    }

    /// Objects that are refused.
    pub(super) fn refused(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.count).filter(|index| self.rotation.is_refused(*index))
    }

    /// Whether everything is refused.
    pub(super) fn is_closed(&self) -> bool {
        self.rotation.freshness() == Freshness::Closed
    }

    /// The highest number that a generation ever had.
    pub(super) fn last_generation(&self) -> Generation {
        self.last
    }

    /// The leases that are looked after.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leasing.known()
    }

    /// Objects whose values end, or were made anew and are not shown yet.
    pub(super) fn ending(&self) -> impl Iterator<Item = usize> + '_ {
        let kept_back = self.kept_back.keys().filter(|index| !self.expiring.contains(index));
        self.expiring.iter().chain(kept_back).copied()
    }

    /// When something must happen; `None`: nothing of this volume is ever read again.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let refresh = self.is_refreshed().then(|| self.since + self.rotation.wake_at());
        refresh.into_iter().chain(self.leasing.wake_at()).min()
    }

    /// Whether there is anything to ask for at the next attempt. Without that, leases vouch for all values.
    fn is_refreshed(&self) -> bool {
        let asked = [&self.readable, &self.wiped, &self.expiring];
        asked.iter().any(|objects| !objects.is_empty())
            || !self.kept_back.is_empty()
            || !self.rotation.is_settled()
    }

    /// What a refresh reads: indexes into the plan's objects; `None` if no refresh is due.
    pub(super) fn due(&mut self) -> Option<BTreeSet<usize>> {
        if !self.is_due() {
            return None;
        }
        self.rotation.begins(self.since.elapsed());
        let asked = self.readable.iter().chain(&self.wiped).chain(&self.expiring);
        Some(asked.filter(|index| !self.kept_back.contains_key(index)).copied().collect())
    }

    /// What leases need now. Objects that must be read anew are asked for at an attempt that is due now.
    pub(super) fn leases_due(&mut self) -> Steps {
        let steps = self.leasing.due();
        if !steps.reissue.is_empty() {
            if !self.is_refreshed() {
                self.rotation.rest(self.since.elapsed());
            }
            self.expiring.extend(&steps.reissue);
            self.kept_back.retain(|index, _| !steps.reissue.contains(index));
            self.attempt_now();
        }
        steps
    }

    pub(super) fn prolonged(&mut self, prolonged: Prolonged) {
        self.leasing.prolonged(prolonged);
    }

    /// While the store can't be reached its own pace counts.
    fn attempt_now(&mut self) {
        if self.freshness() == Freshness::Fresh {
            self.rotation.attempt_at(self.since.elapsed());
        }
    }

    /// The next refresh is due now.
    pub(super) fn look_soon(&mut self) {
        self.attempt_now();
    }

    /// Is refreshed by another policy from now on.
    pub(super) fn follow(&mut self, policy: RefreshPolicy) {
        self.rotation.follow(policy);
    }

    pub(super) fn freshness(&self) -> Freshness {
        self.rotation.freshness()
    }

    /// The number of the next generation.
    pub(super) fn next_generation(&mut self) -> Option<Generation> {
        self.last = Generation::new(self.last.get() + 1)?;
        Some(self.last)
    }

    /// The generation that these would have become readable with did not come about: the next one heals
    /// them.
    pub(super) fn owe(&mut self, consequence: &Consequence) {
        self.owed.extend(&consequence.heal);
        self.is_opening_owed |= consequence.open;
    }

    /// No generation can show these now: what was made for us is kept for the next one.
    pub(super) fn keep_back(&mut self, consequence: &mut Consequence, plan: &VolumePlan) {
        for object in consequence.next.take().into_iter().flatten() {
            let index = plan.objects.iter().position(|planned| planned.path == object.path);
            if let Some(index) = index.filter(|index| consequence.issued.contains(index)) {
                self.kept_back.insert(index, object);
            }
        }
    }

    /// The volume turned to a generation with everything that isn't refused: those values are in memory
    /// again.
    pub(super) fn turned(&mut self) {
        if self.rotation.freshness() != Freshness::Closed {
            let (rotation, owed) = (&self.rotation, &self.owed);
            self.wiped.retain(|index| rotation.is_refused(*index) || owed.contains(index));
        }
        if !self.kept_back.is_empty() {
            self.attempt_now();
        }
    }

    /// Time passed.
    pub(super) fn pass(&mut self) -> Consequence {
        if !self.is_refreshed() {
            return Consequence::default();
        }
        let effects = self.rotation.pass(self.since.elapsed());
        self.consequence(&effects)
    }

    /// A refresh ended: what was asked for, and what came. `None`: too late. `token` is the life of the
    /// store's token after it.
    pub(super) fn observe(
        &mut self,
        asked: &BTreeSet<usize>,
        fetched: Option<Fetch>,
        optional: bool,
        token: TokenLife,
        plan: &VolumePlan,
        current: &Snapshot,
    ) -> Consequence {
        let retry_after = fetched.as_ref().and_then(Fetch::retry_after);
        let outage = outage(fetched.as_ref().map(|fetch| fetch.objects.as_slice()));
        let (answers, leases) = fetched.map(|fetch| (fetch.objects, fetch.leases)).unzip();
        let mut came = BTreeMap::new();
        let results = results(plan, asked, answers, optional, &mut came);
        if let Some(leases) = leases {
            self.learn(token, asked, &results, came.keys().copied().collect(), leases, plan);
        }
        came.append(&mut self.kept_back);
        let now = self.since.elapsed();
        let effects = self.rotation.observe(now, &results, retry_after, jitter());
        self.begin_on_beat();
        let mut consequence = Consequence { outage, ..self.consequence(&effects) };
        if let Some(pause) = retry_after.filter(|_| !self.expiring.is_empty()) {
            // What ends can't wait as long as what is only looked at again.
            let spread = pause.max(LONGEST_RETRY);
            self.rotation.attempt_at(now + pause + jitter().of(spread));
        }
        if consequence.close {
            came.clear();
        }
        self.assemble(&mut consequence, asked, &results, came, plan, current);
        consequence.result = Some(Refreshed::of(&results, consequence.next.is_some()));
        consequence
    }

    /// What a fetch says about leases, and with that about what a refresh reads from now on.
    fn learn(
        &mut self,
        token: TokenLife,
        asked: &BTreeSet<usize>,
        results: &[ObjectResult],
        came: BTreeSet<usize>,
        mut leases: Vec<Lease>,
        plan: &VolumePlan,
    ) {
        let places: Vec<usize> = asked.iter().copied().collect();
        for lease in &mut leases {
            // They are indexes into the plan of what was asked.
            lease.objects =
                lease.objects.iter().filter_map(|at| places.get(*at).copied()).collect();
        }
        leases.retain(|lease| lease.objects.iter().any(|index| came.contains(index)));
        for index in asked.iter().filter(|index| results[**index] == ObjectResult::Good) {
            self.expiring.remove(index);
            let is_leased = leases.iter().any(|lease| lease.objects.contains(index));
            if plan.is_read(*index) && !is_leased {
                self.readable.insert(*index);
            } else {
                self.readable.remove(index);
            }
        }
        self.leasing.observe(token, &came, leases);
    }

    fn consequence(&mut self, effects: &[Effect]) -> Consequence {
        let mut consequence = Consequence::default();
        for effect in effects {
            match effect {
                Effect::Refuse(index) => {
                    consequence.refuse.push(*index);
                    self.wiped.insert(*index);
                    self.expiring.remove(index);
                    self.leasing.forget(&BTreeSet::from([*index]));
                }
                Effect::Restore(index) => consequence.heal.push(*index),
                Effect::Close => {
                    consequence.close = true;
                    // Whatever it was read by: its value is gone.
                    self.wiped = (0..self.count).collect();
                    self.is_opening_owed = false;
                    self.leasing.forget(&self.wiped);
                    self.expiring.clear();
                    self.kept_back.clear();
                }
                Effect::Open => consequence.open = true,
                Effect::BecameStale => consequence.became = Some(Freshness::Stale),
                Effect::BecameFresh => consequence.became = Some(Freshness::Fresh),
            }
        }
        consequence
    }
}

pub(super) fn jitter() -> Jitter {
    Jitter::from_bits(random())
}

pub(super) fn random() -> u32 {
    // Seeded by the kernel's random numbers.
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

#[cfg(test)]
mod tests;
