//! What every kind of store can do: log in as a pod, read for it, keep leases, leave.
//!
//! Invariant: a session belongs to one subject and one login; it refuses a plan of another. A value
//! exists in it only while it is on its way into a [`Fetch`]. A new kind of store implements the two
//! traits and adds a variant to [`crate::plan::PlanSource`].

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use sotto_core::identity::{Audience, StoreName};
use sotto_core::secret::SecretString;
use sotto_core::snapshot::Object;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{ObjectError, StoreError};
use crate::plan::VolumePlan;

/// A configured store, of whatever kind.
pub type Store = dyn SecretStore;
/// A login at a store.
pub type StoreSession = Box<dyn SecretSession>;

/// One configured store. Every call ends by itself: it has a deadline.
pub trait SecretStore: Send + Sync {
    /// Its name.
    fn name(&self) -> &StoreName;

    /// The audience of the tokens that it takes.
    fn audience(&self) -> &Audience;

    /// A session that another process of this agent has carried over ([`SecretSession::carry`]): nothing is
    /// asked. `None`: it can't be resumed, a login is needed.
    fn resume(&self, plan: &VolumePlan, jwt: &SecretString, carried: &[u8])
    -> Option<StoreSession>;

    /// Logs in as the pod, with the pod's own token, which the caller has verified.
    fn login<'a>(
        &'a self,
        plan: &'a VolumePlan,
        jwt: &'a SecretString,
    ) -> BoxFuture<'a, Result<StoreSession, StoreError>>;
}

/// One pod's login. Dropping it leaves the store's token to its own end; [`Self::revoke`] ends it.
pub trait SecretSession: Send + Sync {
    /// Takes the pod's fresh token, for when the store's token has ended and a new login is due.
    fn renew_identity(&self, jwt: &SecretString);

    /// Takes what the volume's `nodePublishSecretRef` holds, for a kind of store that wants it; the others
    /// forget it.
    fn take_publish_secrets(&self, secrets: PublishSecrets) {
        drop(secrets);
    }

    /// The login itself, for the next process of this agent: as secret as the store's token.
    fn carry(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::default()
    }

    /// Reads all objects of the plan. Logs in anew, once, if the store's token is no longer good.
    fn fetch<'a>(&'a self, plan: &'a VolumePlan) -> BoxFuture<'a, Fetch>;

    /// Prolongs a lease by about `increment` from now.
    fn renew_lease<'a>(
        &'a self,
        lease: &'a LeaseId,
        increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, StoreError>>;

    /// Prolongs the store's token, and with it the life of its leases.
    fn renew_token(&self, increment: Duration) -> BoxFuture<'_, Result<TokenLife, StoreError>>;

    /// The life of the store's token.
    fn token_life(&self) -> TokenLife;

    /// Logs in anew while the store's token is still good. That one is kept, and its leases with it, to its
    /// own end or to [`Self::revoke`]. For a kind of store without tokens there is nothing to do.
    fn log_in_anew(&self) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        Box::pin(std::future::ready(Ok(self.token_life())))
    }

    /// Revokes the store's tokens, and with them all their leases. A token that is already gone is fine.
    fn revoke(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What a fetch brought.
pub struct Fetch {
    /// One result an object, in the plan's order. If the plan names no objects (see
    /// [`VolumePlan::naming`]): one for each that the answer holds, or one error.
    pub objects: Vec<Result<Object, ObjectError>>,
    /// Leases of what was read.
    pub leases: Vec<Lease>,
}

impl Fetch {
    /// Nothing came, for one reason.
    pub(crate) fn failed(plan: &VolumePlan, error: StoreError) -> Self {
        let failed = || Err(ObjectError::Store(error.clone()));
        let count = plan.objects.len().max(1);
        Self { objects: std::iter::repeat_with(failed).take(count).collect(), leases: Vec::new() }
    }

    /// Whether the store as a whole could not answer.
    #[must_use]
    pub fn is_outage_of_the_whole_store(&self) -> bool {
        let is_outage = |object: &Result<Object, ObjectError>| match object {
            Err(ObjectError::Store(error)) => error.is_of_the_whole_store(),
            Ok(_) | Err(_) => false,
        };
        self.objects.iter().any(is_outage)
    }

    /// The longest pause that the store asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let errors = self.objects.iter().filter_map(|object| object.as_ref().err());
        errors.filter_map(ObjectError::retry_after).max()
    }
}

/// What a volume's `nodePublishSecretRef` holds: credentials of a provider, out of a Kubernetes Secret.
#[derive(Default)]
pub struct PublishSecrets(Vec<(String, SecretString)>);

impl PublishSecrets {
    /// Each key with its value.
    #[must_use]
    pub fn new(entries: Vec<(String, SecretString)>) -> Self {
        Self(entries)
    }

    /// The entries themselves.
    pub(crate) fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.expose()))
    }
}

/// A lease's id. Whoever holds it and a token can prolong or end the lease: not for logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LeaseId(String);

impl LeaseId {
    /// The id as the store gave it.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// The id itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseId(..)")
    }
}

/// One lease: what was read under it dies with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id. `None`: nothing can be asked about it, and no token carries it; only its end is known, as
    /// that of a certificate.
    pub id: Option<LeaseId>,
    /// Its life.
    pub life: Renewed,
    /// The objects that were read under it, as indexes into the plan's.
    pub objects: Vec<usize>,
}

/// A lease's life, as of the last answer about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// How long it lives from `since` on.
    pub duration: Duration,
    /// When the store said so.
    pub since: Instant,
    /// Whether it can be prolonged.
    pub renewable: bool,
}

/// A store token's life, as of the last answer about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLife {
    /// How long it lives from `since` on; `None` is without end.
    pub ttl: Option<Duration>,
    /// When the store said so.
    pub since: Instant,
    /// Whether it can be prolonged.
    pub renewable: bool,
}

impl TokenLife {
    /// Whether it is over, or so nearly that a request would arrive too late.
    #[must_use]
    pub fn is_over(&self) -> bool {
        const MARGIN: Duration = Duration::from_secs(1);
        self.ttl.is_some_and(|ttl| self.since.elapsed() + MARGIN >= ttl)
    }
}
