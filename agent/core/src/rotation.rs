//! When a volume asks its store again, and what the answers mean for its files: a pure state machine.
//!
//! | the store says | then |
//! |---|---|
//! | all objects read | fresh; what was refused or closed is readable again |
//! | refused or gone, for the first time | asked again after [`CONFIRM_AFTER`], nothing changes yet |
//! | the same again | that object is refused: EACCES |
//! | anything else | an outage: the last good values, until they are `max_stale` old; then all are closed |
//!
//! Invariant: times only come in as arguments (a monotonic age), chance only as a [`Jitter`]; so a paused
//! clock tests it. A refusal changes nothing until it was seen twice in a row; an outage never refuses an
//! object, and only age closes a volume. Called by the volume's owner task.

use std::collections::BTreeSet;
use std::time::Duration;

/// How soon a refusal is asked for again before it counts.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// First pause after an outage; it doubles up to the longest.
pub const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause after an outage, unless the refresh interval is longer than this and shorter pauses
/// would not help: then still this.
pub const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Beats of an interval.
const BEATS: u32 = 60;
/// Longest time from one beat to the next.
const LONGEST_BEAT: Duration = Duration::from_secs(1);

/// What the administrator lets a confirmed refusal do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRevoke {
    /// The object is refused at once.
    #[default]
    Close,
    /// The last good value stays until it is `max_stale` old.
    UntilMaxStale,
}

/// How a volume is kept fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// Time between two attempts.
    pub interval: Duration,
    /// How old the last good values may become.
    pub max_stale: Duration,
    /// What a confirmed refusal does.
    pub on_revoke: OnRevoke,
}

/// A number in [0, 1) by chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// From random bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits as f64 / (u32::MAX as f64 + 1.0))
    }

    /// That part of `whole`.
    #[must_use]
    pub fn of(self, whole: Duration) -> Duration {
        whole.mul_f64(self.0)
    }
}

/// What the store said about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectResult {
    /// It was read.
    Good,
    /// The store refuses it, or it was deleted.
    Refused,
    /// Nothing certain: unreachable, sealed, busy, not understood.
    Outage,
}

/// How fresh a volume's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The last attempt was answered.
    Fresh,
    /// The last good values are served while the store can't be reached.
    Stale,
    /// The last good values are too old: nothing is readable.
    Closed,
}

/// What the volume must do now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Refuse the object with this index, invalidate it, wipe it.
    Refuse(usize),
    /// The object with this index is readable again.
    Restore(usize),
    /// Refuse every object: the values are older than `max_stale`.
    Close,
    /// What [`Effect::Close`] refused is readable again.
    Open,
    /// Say that the values are stale now.
    BecameStale,
    /// Say that the values are fresh again.
    BecameFresh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectState {
    Served,
    Suspected,
    Refused,
}

/// One volume's rotation. All times are ages on one monotonic clock.
#[derive(Debug, Clone)]
pub struct Rotation {
    policy: RefreshPolicy,
    objects: Vec<ObjectState>,
    freshness: Freshness,
    last_answer: Duration,
    outages: u32,
    next: Duration,
    /// When the attempt that is under way began.
    begun: Option<Duration>,
    /// The second attempt's place, as long as the first one is the next.
    second: Option<Duration>,
    /// The store's other volumes are asked for around the next attempt, evenly.
    is_in_line: bool,
}

impl Rotation {
    /// A volume of `objects` that was fetched at `now`. Its first refresh comes after a part of the
    /// interval, by chance, at least half; and the second when twice that has passed: so volumes that
    /// started together are spread over the whole interval.
    #[must_use]
    pub fn new(policy: RefreshPolicy, objects: usize, now: Duration, jitter: Jitter) -> Self {
        let half = policy.interval / 2;
        let first = half + jitter.of(half);
        let (next, second) = (now + first, Some(now + 2 * first));
        Self {
            policy,
            objects: vec![ObjectState::Served; objects],
            freshness: Freshness::Fresh,
            last_answer: now,
            outages: 0,
            next,
            begun: None,
            second,
            is_in_line: false,
        }
    }

    /// What a former process knew already: these objects are refused, or everything is closed.
    pub fn resume(&mut self, refused: &BTreeSet<usize>, is_closed: bool) {
        for index in refused {
            if let Some(object) = self.objects.get_mut(*index) {
                *object = ObjectState::Refused;
            }
        }
        if is_closed {
            self.freshness = Freshness::Closed;
        }
    }

    /// When something must happen next: an attempt, or the end of the last good values.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        match self.freshness {
            Freshness::Closed => self.next,
            Freshness::Fresh | Freshness::Stale => self.next.min(self.stale_at()),
        }
    }

    /// Whether an attempt is due.
    #[must_use]
    pub fn attempt_is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// An attempt begins: what it takes is part of the interval, or a slow store would be asked ever later.
    pub fn begins(&mut self, now: Duration) {
        self.begun = Some(now);
    }

    /// Brings the next attempt forward to `at`: a lease to renew, a person who asked. Never later.
    pub fn attempt_at(&mut self, at: Duration) {
        self.next = self.next.min(at);
    }

    /// The part of the interval after which the first refresh comes, if none came yet: better than by
    /// chance where somebody knows the other volumes.
    pub fn spread(&mut self, now: Duration, part: Jitter) {
        if self.second.is_some() {
            let half = self.policy.interval / 2;
            let first = half + part.of(half);
            (self.next, self.second) = (now + first, Some(now + 2 * first));
        }
    }

    /// The store as a whole can't be asked now: the next attempt is at `at`, a turn among its other volumes'.
    pub fn wait_until(&mut self, at: Duration) {
        (self.next, self.is_in_line) = (at, true);
    }

    /// Another policy counts from the next attempt on; how old the values are is as it was.
    pub fn follow(&mut self, policy: RefreshPolicy) {
        if policy.interval != self.policy.interval {
            self.second = None;
        }
        self.policy = policy;
    }

    /// The time between two attempts.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.policy.interval
    }

    /// The time from one beat to the next, where volumes are asked for on beats.
    #[must_use]
    pub fn beat(&self) -> Duration {
        (self.policy.interval / BEATS).min(LONGEST_BEAT)
    }

    /// When the next attempt is, if nothing but the interval says so: no outage, nothing to confirm, no turn among others.
    #[must_use]
    pub fn attempt_by_interval(&self) -> Option<Duration> {
        let is_steady = self.outages == 0 && !self.is_in_line && !self.is_suspicious();
        is_steady.then_some(self.next)
    }

    /// When the last good values are too old; in the past where everything is closed.
    #[must_use]
    pub fn stale_at(&self) -> Duration {
        self.last_answer.saturating_add(self.policy.max_stale)
    }

    /// Whether a refusal waits to be confirmed.
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        self.objects.contains(&ObjectState::Suspected)
    }

    /// How fresh the values are.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Whether the object with this index is refused.
    #[must_use]
    pub fn is_refused(&self, object: usize) -> bool {
        self.objects.get(object) == Some(&ObjectState::Refused)
    }

    /// Whether no answer waits to be confirmed and no outage lasts.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.freshness == Freshness::Fresh && !self.is_suspicious()
    }

    /// Nothing was asked until `now` since leases vouched for the values: their age counts from here.
    pub fn rest(&mut self, now: Duration) {
        if self.is_settled() {
            self.last_answer = now;
        }
    }

    /// Age of the last answer that was certain.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_answer)
    }

    /// Time passed without an attempt: closes what is too old.
    pub fn pass(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.freshness != Freshness::Closed && now >= self.stale_at() {
            if self.freshness == Freshness::Fresh {
                effects.push(Effect::BecameStale);
            }
            self.freshness = Freshness::Closed;
            effects.push(Effect::Close);
        }
        effects
    }

    /// An attempt ended: `results` has one entry an object, in the class's order. `retry_after` is what the
    /// store asked for.
    pub fn observe(
        &mut self,
        now: Duration,
        results: &[ObjectResult],
        retry_after: Option<Duration>,
        jitter: Jitter,
    ) -> Vec<Effect> {
        debug_assert_eq!(results.len(), self.objects.len(), "one result an object");
        let mut effects = Vec::new();
        let begun = self.begun.take().unwrap_or(now);
        let results: Vec<_> = results.iter().map(|result| self.as_policy_reads(*result)).collect();
        let outage = results.contains(&ObjectResult::Outage);
        let was_closed = self.freshness == Freshness::Closed;
        let mut unconfirmed = false;
        for (index, (state, result)) in self.objects.iter_mut().zip(&results).enumerate() {
            let (next, effect) = judge(*state, *result, index);
            unconfirmed |= next == ObjectState::Suspected && *result == ObjectResult::Refused;
            *state = next;
            effects.extend(effect);
        }
        if outage {
            self.schedule_retry(now, retry_after, jitter);
            if self.freshness == Freshness::Fresh {
                self.freshness = Freshness::Stale;
                effects.push(Effect::BecameStale);
            }
            effects.extend(self.pass(now));
        } else if unconfirmed {
            self.next = now + CONFIRM_AFTER;
        } else {
            self.answered(begun, now, jitter);
            if was_closed {
                effects.push(Effect::Open);
            }
            if std::mem::replace(&mut self.freshness, Freshness::Fresh) != Freshness::Fresh {
                effects.push(Effect::BecameFresh);
            }
        }
        effects
    }

    fn as_policy_reads(&self, result: ObjectResult) -> ObjectResult {
        match (result, self.policy.on_revoke) {
            (ObjectResult::Refused, OnRevoke::UntilMaxStale) => ObjectResult::Outage,
            (result, _) => result,
        }
    }

    fn answered(&mut self, begun: Duration, now: Duration, jitter: Jitter) {
        let interval = self.policy.interval;
        // After an outage everybody's next attempt would be a moment after the store came back.
        let second = self.second.take().and_then(|second| second.checked_sub(begun));
        self.next = if self.outages == 0 {
            // After a first attempt that came late the second one has its place no more.
            let pause = second.filter(|pause| *pause >= interval / 2).unwrap_or(interval);
            let pause = pause.min(interval);
            // A store that needs most of the pause has half of it to rest.
            (begun + pause).max(now + pause / 2)
        } else if self.is_in_line {
            now + interval
        } else {
            now + interval / 2 + jitter.of(interval / 2)
        };
        (self.outages, self.is_in_line) = (0, false);
        self.last_answer = now;
    }

    fn schedule_retry(&mut self, now: Duration, retry_after: Option<Duration>, jitter: Jitter) {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.outages.min(16));
        self.outages = self.outages.saturating_add(1);
        self.next = match retry_after {
            // A store that is busy is asked at no more than the steady rate from then on.
            Some(pause) => now + pause + jitter.of(self.policy.interval),
            None => {
                let longest = doubled.min(LONGEST_RETRY);
                now + longest / 2 + jitter.of(longest / 2)
            }
        };
    }
}

fn judge(state: ObjectState, result: ObjectResult, index: usize) -> (ObjectState, Option<Effect>) {
    match (state, result) {
        (ObjectState::Refused, ObjectResult::Good) => {
            (ObjectState::Served, Some(Effect::Restore(index)))
        }
        (_, ObjectResult::Good) => (ObjectState::Served, None),
        (ObjectState::Served, ObjectResult::Refused) => (ObjectState::Suspected, None),
        (ObjectState::Suspected, ObjectResult::Refused) => {
            (ObjectState::Refused, Some(Effect::Refuse(index)))
        }
        (ObjectState::Refused, ObjectResult::Refused | ObjectResult::Outage) => {
            (ObjectState::Refused, None)
        }
        // Twice in a row, or it doesn't count.
        (ObjectState::Served | ObjectState::Suspected, ObjectResult::Outage) => {
            (ObjectState::Served, None)
        }
    }
}

#[cfg(test)]
mod tests;
