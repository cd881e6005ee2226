//! Each store's gate: how many fetches pass at once, and whether any may.
//!
//! Invariant: a store's trouble delays only its own volumes. While it can't answer, refreshes wait for their
//! turns (`sotto_core::breaker`); a first publish may try, few at a time, so that its pod's event says what
//! is wrong, and what it learns counts for all. Called by the volumes' owners and preparations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sotto_core::breaker::{self, Breaker};
use sotto_core::identity::StoreName;
use sotto_core::rotation::Jitter;
use sotto_store::{Fetch, StoreError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::turning::{jitter, random};

/// Volumes whose secrets may be fetched at once from one store; others wait within their deadline.
const FETCHES_AT_ONCE: usize = 32;
/// First publishes that may ask a store at once which can't answer.
const TRIES_AT_ONCE: usize = 4;

/// Steps of this, as a part of 2^32, fill an interval ever more evenly.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;

/// The gates of all stores.
pub(super) struct Gates(BTreeMap<StoreName, Arc<Gate>>);

impl Gates {
    pub(super) fn new<'a>(stores: impl Iterator<Item = &'a StoreName>) -> Self {
        Self(stores.map(|name| (name.clone(), Arc::new(Gate::new()))).collect())
    }

    pub(super) fn of(&self, store: &StoreName) -> Option<&Arc<Gate>> {
        self.0.get(store)
    }
}

/// One store's gate.
pub(super) struct Gate {
    turns: Arc<Semaphore>,
    tries: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    volumes: AtomicUsize,
    parts: AtomicU32,
    since: Instant,
}

/// A volume that uses the store, as long as it lives.
pub(super) struct Place {
    gate: Arc<Gate>,
    /// Where in the interval it is refreshed: among the store's volumes more even than chance would be.
    pub(super) part: Jitter,
}

/// How a volume is refreshed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) interval: Duration,
    /// When its values are too old; `None`: never.
    pub(super) latest: Option<Instant>,
}

/// A refresh has to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// Nobody asks the store before this.
    pub(super) until: Instant,
    /// The volume's own turn.
    pub(super) turn: Instant,
}

/// May fetch, as long as it lives.
pub(super) struct Passed {
    _turn: OwnedSemaphorePermit,
    _try: Option<OwnedSemaphorePermit>,
}

impl Gate {
    fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(FETCHES_AT_ONCE)),
            tries: Arc::new(Semaphore::new(TRIES_AT_ONCE)),
            breaker: Mutex::default(),
            volumes: AtomicUsize::new(0),
            parts: AtomicU32::new(random()),
            since: Instant::now(),
        }
    }

    /// One volume more uses the store.
    pub(super) fn join(self: &Arc<Self>) -> Place {
        self.volumes.fetch_add(1, Ordering::Relaxed);
        let part = Jitter::from_bits(self.parts.fetch_add(GOLDEN_RATIO, Ordering::Relaxed));
        Place { gate: Arc::clone(self), part }
    }

    /// Whether a refresh may ask now.
    pub(super) fn admit(&self, pace: Pace) -> Result<(), Wait> {
        let admitted = self.lock().admit(self.since.elapsed(), self.pace(pace));
        admitted.map_err(|wait| self.instants(wait))
    }

    /// Whether the store can't answer now, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// A refresh's turn among the fetches that pass at once.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.turns.acquire().await
    }

    /// A first publish's turn.
    pub(super) async fn try_for_publish(&self) -> Result<Passed, AcquireError> {
        let tried = match self.is_open() {
            true => Some(Arc::clone(&self.tries).acquire_owned().await?),
            false => None,
        };
        Ok(Passed { _turn: Arc::clone(&self.turns).acquire_owned().await?, _try: tried })
    }

    /// A login ended.
    pub(super) fn logged_in(&self, result: Result<(), &StoreError>) {
        match result {
            Err(error) if error.is_of_the_whole_store() => self.failed(error.retry_after()),
            Ok(()) | Err(_) => self.lock().answered(),
        }
    }

    /// A fetch ended; `None`: by its deadline. Whether the store answered.
    pub(super) fn fetched(&self, fetch: Option<&Fetch>) -> bool {
        match fetch {
            Some(fetch) if fetch.is_outage_of_the_whole_store() => self.failed(fetch.retry_after()),
            None => self.failed(None),
            Some(_) => {
                self.lock().answered();
                return true;
            }
        }
        false
    }

    /// When a volume that was not answered comes again; `None`: by its own pace.
    pub(super) fn wait(&self, pace: Pace) -> Option<Wait> {
        let wait = self.lock().wait(self.since.elapsed(), self.pace(pace));
        wait.map(|wait| self.instants(wait))
    }

    fn failed(&self, retry_after: Option<Duration>) {
        let mut breaker = self.lock();
        let was_open = breaker.is_open();
        breaker.failed(self.since.elapsed(), retry_after, jitter());
        if breaker.is_open() && !was_open {
            tracing::warn!(?retry_after, "a store can't answer: the refreshes of its volumes wait");
        }
    }

    fn pace(&self, pace: Pace) -> breaker::Pace {
        let latest = pace.latest.map(|latest| latest.saturating_duration_since(self.since));
        breaker::Pace {
            interval: pace.interval,
            volumes: self.volumes.load(Ordering::Relaxed),
            latest: latest.unwrap_or(Duration::MAX),
        }
    }

    fn instants(&self, wait: breaker::Wait) -> Wait {
        Wait { until: self.since + wait.until, turn: self.since + wait.turn }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Where the beats are counted from on which the store's volumes are refreshed: so that one wake-up does for several.
    pub(super) fn beats(&self) -> Instant {
        self.gate.since
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.volumes.fetch_sub(1, Ordering::Relaxed);
    }
}
