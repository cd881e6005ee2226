//! The SecretProviderClasses of the cluster, from a cache that one watch keeps.
//!
//! Invariant: a look-up never waits for the network. During an outage the last state seen is served,
//! however old; before the first complete list nothing is, and the answer says so, so that "unknown"
//! always means that the API server said so.

mod cache;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::client::Cluster;
use cache::Cache;

/// Times of the watch; the defaults are for production.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Classes a page of a list.
    pub page: u32,
    /// How long a page, or the beginning of a watch, may take.
    pub request_deadline: Duration,
    /// How long one watch lasts before it is made anew, at most. Whole seconds, under 295.
    pub watch_length: Duration,
    /// After about this time everything is listed again, should a change have been missed.
    pub resync: Duration,
    /// The first pause after a failure.
    pub shortest_pause: Duration,
    /// The longest pause after failures.
    pub longest_pause: Duration,
    /// How many changes a slow reader of [`Classes::changes`] may be behind before it is told
    /// [`Change::Missed`].
    pub changes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            page: 250,
            request_deadline: Duration::from_secs(30),
            watch_length: Duration::from_secs(240),
            resync: Duration::from_secs(30 * 60),
            shortest_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            changes: 1024,
        }
    }
}

/// Why there is no class to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookUpError {
    /// Nothing was ever read: the class may well exist.
    #[error(
        "the SecretProviderClasses have not been read from the API server yet{}: \
         the mount is tried again",
        because(why)
    )]
    NotSynced {
        /// The last failure, if there was one.
        why: Option<String>,
    },
    /// The API server doesn't know it.
    #[error(
        "no SecretProviderClass {name} in namespace {namespace}{}: create it there, or correct the \
         volume's secretProviderClass attribute",
        outdated(behind)
    )]
    Unknown {
        /// The pod's namespace.
        namespace: Namespace,
        /// The name in the volume's attributes.
        name: ClassName,
        /// Set during an outage: how old that knowledge is, and why.
        behind: Option<(Duration, String)>,
    },
    /// It exists, and its author must correct it.
    #[error("SecretProviderClass {namespace}/{name} can't be used: {reason}")]
    Unusable {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ClassName,
        /// What is wrong with it.
        reason: String,
    },
}

fn because(why: &Option<String>) -> String {
    why.as_ref().map_or_else(String::new, |why| format!(" ({why})"))
}

fn outdated(behind: &Option<(Duration, String)>) -> String {
    behind.as_ref().map_or_else(String::new, |(age, why)| {
        format!(", as the API server said {} s ago; now {why}", age.as_secs())
    })
}

/// How much the cache can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// No list was completed yet.
    NotSynced {
        /// The last failure.
        why: Option<String>,
    },
    /// A watch is open.
    Live,
    /// The API server can't be watched; what was seen until then is served.
    Behind {
        /// Since when.
        since: Instant,
        /// The last failure.
        why: String,
    },
}

/// A class that was created, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This one.
    Class {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ClassName,
    },
    /// The reader was too slow and missed some: look at every class again.
    Missed,
}

/// The classes; cheap to clone.
#[derive(Clone)]
pub struct Classes {
    cache: Arc<Cache>,
}

impl Classes {
    /// An empty cache, and the watch that fills it: the caller spawns it and owns the task; it never
    /// ends by itself.
    pub fn start(
        cluster: &Cluster,
        settings: Settings,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let cache = Arc::new(Cache::new(settings.changes));
        let watch = watch::Watch::new(cluster, Arc::clone(&cache), settings);
        (Self { cache }, watch.run())
    }

    /// The class, if it is known and usable.
    #[must_use]
    pub fn get(&self, namespace: &Namespace, name: &ClassName) -> Option<Arc<SecretProviderClass>> {
        self.look_up(namespace, name).ok()
    }

    /// The class, or why there is none.
    ///
    /// # Errors
    /// Told apart: not synced yet, unknown, unusable.
    pub fn look_up(
        &self,
        namespace: &Namespace,
        name: &ClassName,
    ) -> Result<Arc<SecretProviderClass>, LookUpError> {
        self.cache.look_up(namespace, name)
    }

    /// How much the cache can be trusted at present.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.cache.freshness()
    }

    /// Waits for the first complete list.
    ///
    /// # Errors
    /// [`LookUpError::NotSynced`] once `deadline` is over.
    pub async fn synced(&self, deadline: Duration) -> Result<(), LookUpError> {
        self.cache.synced(deadline).await
    }

    /// Changes from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.cache.subscribe())
    }
}

/// A bounded stream of changes.
pub struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// The next change; nothing once the watch is gone.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
