//! One volume's way to new values: what a refresh brought, what follows from it, and the steps of a turn.
//!
//! Invariant: refuse, invalidate, wipe, in this order. A turn that could not be completed is kept and tried
//! again whole; all of its steps may be repeated. What was wiped is read again before it is served again.
//! Objects read under a lease or by another method than GET are left alone: reading them again would make
//! new credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use sotto_core::rotation::{Effect, Freshness, Jitter, ObjectResult, RefreshPolicy, Rotation};
use sotto_core::snapshot::{Generation, Object, Snapshot};
use sotto_store::{Fetch, Lease, VolumePlan};
use tokio::time::Instant;

use super::wipe::{copied, empty};

/// What a volume does about time.
pub(super) struct Turning {
    rotation: Rotation,
    since: Instant,
    /// Objects that a refresh reads.
    readable: BTreeSet<usize>,
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
    /// The objects of the next generation, where there is one.
    pub(super) next: Option<Vec<Object>>,
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
        leases: &[Lease],
        generation: Generation,
    ) -> Self {
        let leased: BTreeSet<usize> =
            leases.iter().flat_map(|lease| lease.objects.iter().copied()).collect();
        let count = plan.objects.len();
        let readable = (0..count).filter(|index| plan.is_read(*index) && !leased.contains(index));
        Self {
            readable: readable.collect(),
            rotation: Rotation::new(policy, count, Duration::ZERO, jitter()),
            since: Instant::now(),
            wiped: BTreeSet::new(),
            last: generation,
            count,
            owed: BTreeSet::new(),
            is_opening_owed: false,
        }
    }

    /// When something must happen; `None`: nothing of this volume is ever read again.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        (!self.readable.is_empty()).then(|| self.since + self.rotation.wake_at())
    }

    /// What a refresh reads: indexes into the plan's objects, none if no refresh is due.
    pub(super) fn due(&self) -> BTreeSet<usize> {
        if self.rotation.attempt_is_due(self.since.elapsed()) {
            self.readable.union(&self.wiped).copied().collect()
        } else {
            BTreeSet::new()
        }
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

    /// The volume turned to a generation with everything that isn't refused: those values are in memory
    /// again.
    pub(super) fn turned(&mut self) {
        if self.rotation.freshness() != Freshness::Closed {
            let (rotation, owed) = (&self.rotation, &self.owed);
            self.wiped.retain(|index| rotation.is_refused(*index) || owed.contains(index));
        }
    }

    /// Time passed.
    pub(super) fn pass(&mut self) -> Consequence {
        let effects = self.rotation.pass(self.since.elapsed());
        self.consequence(&effects)
    }

    /// A refresh ended: what was asked for, and what came. `None`: too late.
    pub(super) fn observe(
        &mut self,
        asked: &BTreeSet<usize>,
        fetched: Option<Fetch>,
        optional: bool,
        plan: &VolumePlan,
        current: &Snapshot,
    ) -> Consequence {
        let mut results: Vec<_> = plan.objects.iter().map(|_| ObjectResult::Good).collect();
        let retry_after = fetched.as_ref().and_then(Fetch::retry_after);
        let mut came = BTreeMap::new();
        match fetched {
            None => asked.iter().for_each(|index| results[*index] = ObjectResult::Outage),
            Some(fetch) => {
                for (index, object) in asked.iter().zip(fetch.objects) {
                    results[*index] = match object {
                        Ok(object) => {
                            came.insert(*index, object);
                            ObjectResult::Good
                        }
                        Err(error) if optional && error.is_absence() => ObjectResult::Good,
                        Err(error) if error.is_refusal() => ObjectResult::Refused,
                        Err(_) => ObjectResult::Outage,
                    };
                }
            }
        }
        let now = self.since.elapsed();
        let effects = self.rotation.observe(now, &results, retry_after, jitter());
        let mut consequence = self.consequence(&effects);
        let certain = results.iter().enumerate().all(|(index, result)| {
            *result == ObjectResult::Good || self.rotation.is_refused(index)
        });
        if certain {
            let owed = std::mem::take(&mut self.owed);
            let refused = |index: &usize| self.rotation.is_refused(*index);
            consequence.heal.extend(owed.into_iter().filter(|index| !refused(index)));
            consequence.open |= std::mem::take(&mut self.is_opening_owed);
            consequence.next = self.next_objects(asked, came, plan, current, &consequence);
        }
        consequence
    }

    fn consequence(&mut self, effects: &[Effect]) -> Consequence {
        let mut consequence = Consequence::default();
        for effect in effects {
            match effect {
                Effect::Refuse(index) => {
                    consequence.refuse.push(*index);
                    self.wiped.insert(*index);
                }
                Effect::Restore(index) => consequence.heal.push(*index),
                Effect::Close => {
                    consequence.close = true;
                    // Whatever it was read by: its value is gone.
                    self.wiped = (0..self.count).collect();
                    self.is_opening_owed = false;
                }
                Effect::Open => consequence.open = true,
                Effect::BecameStale => consequence.became = Some(Freshness::Stale),
                Effect::BecameFresh => consequence.became = Some(Freshness::Fresh),
            }
        }
        consequence
    }

    /// The objects of the next generation: what came, what is as it was, and empty ones for what is refused.
    fn next_objects(
        &self,
        asked: &BTreeSet<usize>,
        mut came: BTreeMap<usize, Object>,
        plan: &VolumePlan,
        current: &Snapshot,
        consequence: &Consequence,
    ) -> Option<Vec<Object>> {
        let versions: BTreeMap<&str, &str> =
            current.versions().iter().map(|it| (it.id.as_str(), it.version.as_str())).collect();
        let path = |index: usize| plan.objects[index].path.as_str();
        let same = |index: &usize| {
            came.get(index).map(|object| object.version.as_str())
                == versions.get(path(*index)).copied()
        };
        let returns = consequence.open || !consequence.heal.is_empty();
        let refused = |index: &usize| self.rotation.is_refused(*index);
        if !returns && asked.iter().all(|index| refused(index) || same(index)) {
            return None;
        }
        let mut objects = Vec::new();
        for (index, planned) in plan.objects.iter().enumerate() {
            if let Some(object) = came.remove(&index) {
                objects.push(object);
            } else if self.rotation.is_refused(index) {
                objects.push(empty(&planned.path, planned.mode));
            } else if !asked.contains(&index) {
                objects.extend(copied(current, &planned.path));
            }
        }
        Some(objects)
    }
}

/// Fingerprint of a generation's names, never 0. FNV-1a: the same in every build.
pub(super) fn layout<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

fn jitter() -> Jitter {
    // Seeded by the kernel's random numbers.
    Jitter::from_bits((RandomState::new().build_hasher().finish() >> 32) as u32)
}
