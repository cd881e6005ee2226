//! Keys from the issuer, cached.
//!
//! | when | then |
//! |---|---|
//! | a key id isn't in the cache | the set is fetched again, at most every 5 s |
//! | the set is 10 min old | it is fetched again; if that fails the old one stays in use |
//! | the set is 24 h old | it is not used any more |
//!
//! One fetch is under way at a time; who waits for it gets its result.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Boxed, KEYS_DEADLINE, KeyError, KeysError, find, parse};
use crate::token::keys::{Key, KeySet};

/// Shortest time between two fetches.
const FETCH_PAUSE: Duration = Duration::from_secs(5);
/// Age at which a set is fetched again: a key that the issuer withdrew is forgotten by then.
const REFRESH_AGE: Duration = Duration::from_secs(10 * 60);
/// Age at which a set is not used any more.
const LARGEST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Gets the bytes of a key set.
pub trait FetchKeys: Send + Sync {
    /// The set's address, for messages.
    fn address(&self) -> &str;

    /// Fetches it once.
    fn fetch(&self) -> Boxed<'_, Result<Vec<u8>, KeysError>>;
}

/// A key set at the issuer.
pub struct UrlKeys {
    fetch: Box<dyn FetchKeys>,
    current: ArcSwapOption<Fetched>,
    last: Mutex<Option<Attempt>>,
}

struct Fetched {
    keys: KeySet,
    at: Instant,
}

struct Attempt {
    at: Instant,
    result: Result<(), KeysError>,
}

impl UrlKeys {
    /// Fetches at the first look-up.
    #[must_use]
    pub fn new(fetch: Box<dyn FetchKeys>) -> Self {
        Self { fetch, current: ArcSwapOption::empty(), last: Mutex::new(None) }
    }

    pub(super) async fn check(&self) -> Result<usize, KeysError> {
        self.fetched_after(None).await?;
        let current = self.current.load();
        Ok(current.as_ref().map_or(0, |fetched| fetched.keys.usable()))
    }

    pub(super) async fn key(&self, kid: &str) -> Result<Arc<Key>, KeyError> {
        let before = self.current.load_full();
        if let Some(fetched) = &before
            && fetched.at.elapsed() < REFRESH_AGE
            && let found @ (Ok(_) | Err(KeyError::Unusable(_))) = find(&fetched.keys, kid)
        {
            return found;
        }
        let refreshed = self.fetched_after(before.map(|fetched| fetched.at)).await;
        let current = self.current.load_full();
        let usable = current.filter(|fetched| fetched.at.elapsed() < LARGEST_AGE);
        let found = usable.map(|fetched| find(&fetched.keys, kid));
        match (found, refreshed) {
            (Some(found @ (Ok(_) | Err(KeyError::Unusable(_)))), _) => found,
            // A key that nobody knows while the issuer can't be asked may be a new one.
            (_, Err(error)) => Err(KeyError::Unavailable(error)),
            (_, Ok(())) => Err(KeyError::Unknown),
        }
    }

    /// Makes sure that the set was fetched, or tried to be, after `seen`, within the deadline.
    async fn fetched_after(&self, seen: Option<Instant>) -> Result<(), KeysError> {
        tokio::time::timeout(KEYS_DEADLINE, self.fetch_once(seen))
            .await
            .unwrap_or_else(|_| Err(self.late()))
    }

    async fn fetch_once(&self, seen: Option<Instant>) -> Result<(), KeysError> {
        let mut last = self.last.lock().await;
        let current = self.current.load().as_ref().map(|fetched| fetched.at);
        if current > seen {
            return Ok(());
        }
        if let Some(attempt) = last.as_ref().filter(|attempt| attempt.at.elapsed() < FETCH_PAUSE) {
            return attempt.result.clone();
        }
        // What stands here should this future be dropped by the deadline.
        let at = Instant::now();
        *last = Some(Attempt { at, result: Err(self.late()) });
        let result = self.fetch.fetch().await.and_then(|json| parse(self.fetch.address(), &json));
        let result = result.map(|keys| {
            tracing::info!(
                from = self.fetch.address(),
                keys = keys.usable(),
                "the issuer's keys were fetched"
            );
            self.current.store(Some(Arc::new(Fetched { keys, at: Instant::now() })));
        });
        if let Err(error) = &result {
            tracing::warn!(%error, "the issuer's keys were not fetched");
        }
        *last = Some(Attempt { at, result: result.clone() });
        result
    }

    fn late(&self) -> KeysError {
        KeysError::Deadline { from: self.fetch.address().to_owned() }
    }
}

#[cfg(test)]
mod tests;
