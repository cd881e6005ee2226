//! A volume's leases at its store: which there are, and what the store answers when they are prolonged.
//!
//! Invariant: `sotto_core::lease` decides what is done and when; this keeps the ids that it doesn't know, and
//! asks. One thing at a time: nothing is fetched while something is prolonged, so that a token that changed
//! in a fetch was replaced by that fetch. Called by [`super::turning`] and the volume's owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use sotto_core::lease::{Due, LeaseNumber, Leases, Life, Renewal, TokenStep};
use sotto_store::session::{LeaseId, Renewed, TokenLife};
use sotto_store::{Lease, StoreError, StoreSession};
use tokio::time::Instant;

use super::turning::jitter;

/// Renewals of one volume at the same time.
const RENEWALS_AT_ONCE: usize = 4;
/// How long one may take; the store's own deadline is shorter.
const RENEWAL_DEADLINE: Duration = Duration::from_secs(30);

/// The leases of one volume.
pub(super) struct Leasing {
    leases: Leases,
    ids: BTreeMap<LeaseNumber, LeaseId>,
    /// As of the last answers, for the next worker.
    known: BTreeMap<LeaseNumber, Lease>,
    since: Instant,
    /// When the store last said something about the token that is known.
    token_since: Instant,
}

/// What is to be asked now.
pub(super) struct Steps {
    token: Option<TokenStep>,
    renew: Vec<(LeaseNumber, LeaseId, Duration)>,
    /// Objects to be read anew.
    pub(super) reissue: BTreeSet<usize>,
}

/// What was answered. `None`: nothing in time.
pub(super) struct Prolonged {
    token: Option<(TokenStep, Option<Result<TokenLife, StoreError>>)>,
    leases: Vec<(LeaseNumber, Option<Result<Renewed, StoreError>>)>,
}

impl Steps {
    /// Whether the store is to be asked for something but objects.
    pub(super) fn is_nothing(&self) -> bool {
        self.token.is_none() && self.renew.is_empty()
    }

    /// Asks.
    pub(super) async fn run(self, session: &StoreSession) -> Prolonged {
        let token = match self.token {
            Some(step) => Some((step, in_time(token_step(session, step)).await)),
            None => None,
        };
        let renew = self.renew.into_iter().map(|(number, id, length)| {
            async move { (number, in_time(session.renew_lease(&id, length)).await) }.boxed()
        });
        let renew: Vec<BoxFuture<'_, _>> = renew.collect();
        let leases = stream::iter(renew).buffer_unordered(RENEWALS_AT_ONCE).collect().await;
        Prolonged { token, leases }
    }
}

impl Prolonged {
    /// Why something was not prolonged.
    pub(super) fn errors(&self) -> impl Iterator<Item = &StoreError> {
        let leases = self.leases.iter().filter_map(|(_, result)| result.as_ref()?.as_ref().err());
        let token = self.token.iter().filter_map(|(_, result)| result.as_ref()?.as_ref().err());
        token.chain(leases)
    }
}

impl Prolonged {
    /// How each renewal went; `None`: no answer in time.
    pub(super) fn renewals(&self) -> impl Iterator<Item = Option<Result<(), &StoreError>>> {
        let leases = self.leases.iter().map(|(_, result)| told(result.as_ref()));
        let renewed = self.token.iter().filter(|(step, _)| matches!(step, TokenStep::Renew(_)));
        leases.chain(renewed.map(|(_, result)| told(result.as_ref())))
    }

    /// How a login beside the old token went, if there was one.
    pub(super) fn login(&self) -> Option<Result<(), &StoreError>> {
        self.token
            .as_ref()
            .filter(|(step, _)| *step == TokenStep::LogIn)?
            .1
            .as_ref()
            .map(|result| result.as_ref().map(drop))
    }
}

fn told<T>(result: Option<&Result<T, StoreError>>) -> Option<Result<(), &StoreError>> {
    result.map(|result| result.as_ref().map(drop))
}

impl Leasing {
    pub(super) fn new(since: Instant, leases: Vec<Lease>, token: TokenLife) -> Self {
        let life = |life: &TokenLife| token_life(life, since);
        let mut leasing = Self {
            leases: Leases::new(life(&token), jitter()),
            ids: BTreeMap::new(),
            known: BTreeMap::new(),
            since,
            token_since: token.since,
        };
        leases.into_iter().for_each(|lease| leasing.insert(lease));
        leasing
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.leases.wake_at().and_then(|at| self.since.checked_add(at))
    }

    pub(super) fn due(&mut self) -> Steps {
        let Due { renew, token, reissue } = self.leases.due(self.since.elapsed());
        let id = |number| self.ids.get(&number).cloned();
        let renew = renew.into_iter();
        let renew = renew.filter_map(|(number, length)| Some((number, id(number)?, length)));
        Steps { token, renew: renew.collect(), reissue }
    }

    pub(super) fn prolonged(&mut self, prolonged: Prolonged) {
        let now = self.since.elapsed();
        for (number, result) in prolonged.leases {
            let renewal = match result {
                Some(Ok(renewed)) => {
                    if let Some(known) = self.known.get_mut(&number) {
                        known.life = renewed;
                    }
                    Renewal::Renewed(life(&renewed, self.since))
                }
                Some(Err(error)) => failed(&error),
                None => Renewal::Failed(None),
            };
            self.leases.renewed(number, renewal, now, jitter());
        }
        match prolonged.token {
            None => {}
            Some((TokenStep::LogIn, Some(Ok(token)))) => self.token_replaced(&token),
            Some((TokenStep::LogIn, Some(Err(error)))) => {
                self.leases.login_failed(error.retry_after(), now, jitter());
            }
            Some((TokenStep::LogIn, None)) => self.leases.login_failed(None, now, jitter()),
            Some((TokenStep::Renew(_), result)) => self.token_renewed(result, now),
        }
    }

    fn token_renewed(&mut self, result: Option<Result<TokenLife, StoreError>>, now: Duration) {
        let renewal = match result {
            Some(Ok(token)) => {
                self.token_since = token.since;
                match token_life(&token, self.since) {
                    Some(life) => Renewal::Renewed(life),
                    None => return self.token_replaced(&token),
                }
            }
            Some(Err(error)) => failed(&error),
            None => Renewal::Failed(None),
        };
        self.leases.token_renewed(renewal, now, jitter());
    }

    fn token_replaced(&mut self, token: &TokenLife) {
        self.token_since = token.since;
        let (life, now) = (token_life(token, self.since), self.since.elapsed());
        self.leases.token_replaced(life, now, jitter());
    }

    /// A fetch brought these objects and leases; `token` is the token's life after it.
    pub(super) fn observe(&mut self, token: TokenLife, came: &BTreeSet<usize>, leases: Vec<Lease>) {
        if token.ttl.is_some() && token.since != self.token_since {
            self.token_replaced(&token);
        }
        self.leases.replaced(came);
        leases.into_iter().for_each(|lease| self.insert(lease));
        self.forget_ids();
    }

    /// These objects are refused or closed.
    pub(super) fn forget(&mut self, objects: &BTreeSet<usize>) {
        self.leases.forget(objects);
        self.forget_ids();
    }

    /// All that are looked after.
    pub(super) fn known(&self) -> impl Iterator<Item = &Lease> {
        self.known.values()
    }

    fn insert(&mut self, lease: Lease) {
        let known = lease.clone();
        let objects = lease.objects.into_iter().collect();
        let life = life(&lease.life, self.since);
        let number = self.leases.insert(objects, life, lease.id.is_some(), jitter());
        self.ids.extend(lease.id.map(|id| (number, id)));
        self.known.insert(number, known);
    }

    fn forget_ids(&mut self) {
        let leases = &self.leases;
        self.ids.retain(|number, _| leases.contains(*number));
        self.known.retain(|number, _| leases.contains(*number));
    }
}

fn token_step(
    session: &StoreSession,
    step: TokenStep,
) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
    match step {
        TokenStep::Renew(length) => session.renew_token(length),
        TokenStep::LogIn => session.log_in_anew(),
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(RENEWAL_DEADLINE, work).await.ok()
}

fn failed(error: &StoreError) -> Renewal {
    match error {
        StoreError::NoSuchLease { .. } | StoreError::TokenRefused { .. } => Renewal::Gone,
        error => Renewal::Failed(error.retry_after()),
    }
}

fn life(renewed: &Renewed, since: Instant) -> Life {
    let age = renewed.since.saturating_duration_since(since);
    Life { duration: renewed.duration, since: age, renewable: renewed.renewable }
}

fn token_life(token: &TokenLife, since: Instant) -> Option<Life> {
    let age = token.since.saturating_duration_since(since);
    token.ttl.map(|duration| Life { duration, since: age, renewable: token.renewable })
}
