//! When what was read under a lease is prolonged or read anew, and the store's token that it depends on: a
//! pure state machine.
//!
//! | then | what is done |
//! |---|---|
//! | two thirds of a life are over | it is prolonged by its first length |
//! | much less than that is given, or it can't be prolonged | read anew at two thirds of what is left |
//! | the store doesn't know it any more | read anew at once |
//! | prolonging fails | tried again, with growing pauses; read anew before the end |
//! | the token can't be prolonged | a new login before its end, then all that depends on it is read anew |
//! | the token ended | all that depends on it is read anew |
//!
//! Invariant: times only come in as arguments (a monotonic age), chance only as a [`Jitter`]. The token is
//! prolonged only while something depends on it. What was read under a lease is never given up here before
//! its replacement was read: the old one lives to its own end beside the new. Called by the volume's owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::rotation::{FIRST_RETRY, Jitter, LONGEST_RETRY};

mod term;

use term::Term;

/// A life that is shorter than this when it begins is over already: the clocks differ, or the store jests.
pub const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// What such a life is taken for, so that the store isn't asked without a pause.
pub const PAUSE_WITHOUT_LIFE: Duration = Duration::from_secs(30);

/// One lease of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseNumber(u64);

/// A life, as of the last answer about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// How long it lives from `since` on.
    pub duration: Duration,
    /// When the store said so.
    pub since: Duration,
    /// Whether it can be prolonged.
    pub renewable: bool,
}

/// What came of prolonging something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It lives on, perhaps not as long as was asked for.
    Renewed(Life),
    /// The store doesn't know it any more.
    Gone,
    /// Nothing certain; the pause that the store asked for.
    Failed(Option<Duration>),
}

/// What is done about the store's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStep {
    /// It is prolonged by this.
    Renew(Duration),
    /// A new one is logged in for; the old one is kept to its end.
    LogIn,
}

/// What must be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Leases to be prolonged, each by this.
    pub renew: Vec<(LeaseNumber, Duration)>,
    /// The token's step, before anything is read anew.
    pub token: Option<TokenStep>,
    /// Objects to be read anew. They stay so until [`Leases::replaced`] or [`Leases::forget`].
    pub reissue: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
struct Entry {
    objects: BTreeSet<usize>,
    term: Term,
    /// It dies with the store's token.
    depends_on_token: bool,
}

/// All leases of one volume, and the token of its login. All times are ages on one monotonic clock.
#[derive(Debug, Clone)]
pub struct Leases {
    entries: BTreeMap<LeaseNumber, Entry>,
    last: u64,
    /// `None`: without end.
    token: Option<Term>,
}

impl Leases {
    /// No lease yet, under a token with this life; `None` is without end.
    #[must_use]
    pub fn new(token: Option<Life>, jitter: Jitter) -> Self {
        let token = token.map(|life| Term::new(life, jitter));
        Self { entries: BTreeMap::new(), last: 0, token }
    }

    /// Objects that were read under a lease. One without an id is only a date, and doesn't depend on the
    /// token.
    pub fn insert(
        &mut self,
        objects: BTreeSet<usize>,
        life: Life,
        depends_on_token: bool,
        jitter: Jitter,
    ) -> LeaseNumber {
        self.last += 1;
        let number = LeaseNumber(self.last);
        let entry = Entry { objects, term: Term::new(life, jitter), depends_on_token };
        self.entries.insert(number, entry);
        number
    }

    /// Whether this lease is still looked after.
    #[must_use]
    pub fn contains(&self, lease: LeaseNumber) -> bool {
        self.entries.contains_key(&lease)
    }

    /// When something must be done next.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let token = self.token_matters().and_then(Term::wake_at);
        self.entries.values().filter_map(|entry| entry.term.due).chain(token).min()
    }

    /// What must be done now. What is returned is under way and won't be again before its result is told.
    pub fn due(&mut self, now: Duration) -> Due {
        let mut due = Due::default();
        if self.token_matters().is_some_and(|token| token.has_ended(now)) {
            self.token_is_lost(now);
        } else if self.token_matters().is_some()
            && let Some(token) = &mut self.token
        {
            let step = |length: Option<Duration>| length.map_or(TokenStep::LogIn, TokenStep::Renew);
            due.token = token.take_due(now).map(step);
        }
        for (number, entry) in &mut self.entries {
            // After the login it is read anew anyway.
            if entry.depends_on_token && due.token == Some(TokenStep::LogIn) {
                continue;
            }
            match entry.term.take_due(now) {
                Some(Some(length)) => due.renew.push((*number, length)),
                Some(None) => due.reissue.extend(&entry.objects),
                None => {}
            }
        }
        due
    }

    /// What came of prolonging a lease.
    pub fn renewed(&mut self, lease: LeaseNumber, renewal: Renewal, now: Duration, jitter: Jitter) {
        let Some(entry) = self.entries.get_mut(&lease) else { return };
        match renewal {
            Renewal::Renewed(life) => entry.term.renewed(life, jitter),
            Renewal::Gone => entry.term.ends(now),
            Renewal::Failed(retry_after) => entry.term.failed(now, retry_after, jitter),
        }
    }

    /// What came of prolonging the token.
    pub fn token_renewed(&mut self, renewal: Renewal, now: Duration, jitter: Jitter) {
        match (renewal, &mut self.token) {
            (Renewal::Gone, _) => self.token_is_lost(now),
            (Renewal::Renewed(life), Some(token)) => token.renewed(life, jitter),
            (Renewal::Failed(pause), Some(token)) => token.failed(now, pause, jitter),
            (Renewal::Renewed(_) | Renewal::Failed(_), None) => {}
        }
    }

    /// A login failed; the pause that the store asked for.
    pub fn login_failed(&mut self, retry_after: Option<Duration>, now: Duration, jitter: Jitter) {
        if let Some(token) = &mut self.token {
            token.failed(now, retry_after, jitter);
        }
    }

    /// Another token took the place of the old one: what depends on that one is to be read anew.
    pub fn token_replaced(&mut self, token: Option<Life>, now: Duration, jitter: Jitter) {
        self.token = token.map(|life| Term::new(life, jitter));
        self.end_dependents(now);
    }

    /// These objects were read anew: what they were read under before is left to its own end.
    pub fn replaced(&mut self, objects: &BTreeSet<usize>) {
        self.entries.retain(|_, entry| entry.objects.is_disjoint(objects));
    }

    /// These objects are refused or closed: nobody reads them, and no lease of theirs is prolonged.
    pub fn forget(&mut self, objects: &BTreeSet<usize>) {
        self.entries.retain(|_, entry| {
            entry.objects.retain(|object| !objects.contains(object));
            !entry.objects.is_empty()
        });
    }

    /// The token's term, while something depends on it.
    fn token_matters(&self) -> Option<&Term> {
        let depends = self.entries.values().any(|entry| entry.depends_on_token);
        self.token.as_ref().filter(|_| depends)
    }

    /// Whoever reads next logs in by itself, and tells of it by [`Self::token_replaced`].
    fn token_is_lost(&mut self, now: Duration) {
        self.token = None;
        self.end_dependents(now);
    }

    fn end_dependents(&mut self, now: Duration) {
        for entry in self.entries.values_mut().filter(|entry| entry.depends_on_token) {
            entry.term.ends(now);
        }
    }
}

#[cfg(test)]
mod tests;
