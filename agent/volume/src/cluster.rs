//! What only the API server knows about a volume's pod.
//!
//! Invariant: each question ends by its own deadline. A review that could not be made is no yes; what a pod
//! is like is a courtesy that no mount waits long for. Called while a volume is prepared, and with each
//! fresh token of a store that wants reviews.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use sotto_core::identity::{Audience, StoreName, WorkloadIdentity};
use sotto_core::secret::SecretString;

/// Why a token is not accepted after it was verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewFault {
    /// The API server says no.
    #[error("{0}")]
    Refused(String),
    /// It said nothing.
    #[error("{0}: the store wants every token reviewed (tokens.review), so the pod has to wait")]
    Unavailable(String),
}

/// An answer that is waited for.
pub type Answering<'a, T> = BoxFuture<'a, T>;

/// Asks the API server.
pub trait ClusterView: Send + Sync {
    /// Has a token reviewed that must be this pod's, for this audience.
    fn review<'a>(
        &'a self,
        token: &'a SecretString,
        audience: &'a Audience,
        pod: &'a WorkloadIdentity,
    ) -> BoxFuture<'a, Result<(), ReviewFault>>;

    /// Whether the pod has a user namespace of its own (`hostUsers: false`): its mount must be one that the
    /// container runtime can map ids on. False where nobody knows.
    fn has_own_users<'a>(&'a self, pod: &'a WorkloadIdentity) -> BoxFuture<'a, bool>;
}

/// Without an API server: nothing is known, and no store may want reviews.
pub struct NoCluster;

impl ClusterView for NoCluster {
    fn review<'a>(
        &'a self,
        _: &'a SecretString,
        _: &'a Audience,
        _: &'a WorkloadIdentity,
    ) -> BoxFuture<'a, Result<(), ReviewFault>> {
        let fault = ReviewFault::Unavailable("there is no API server to ask".to_owned());
        Box::pin(std::future::ready(Err(fault)))
    }

    fn has_own_users<'a>(&'a self, _: &'a WorkloadIdentity) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// Whom to ask, and for which stores.
#[derive(Clone)]
pub struct Reviews {
    /// The API server.
    pub cluster: Arc<dyn ClusterView>,
    /// Stores whose pods' tokens are reviewed, beside the offline check.
    pub stores: BTreeSet<StoreName>,
}

impl Reviews {
    /// Has the token reviewed if the store wants that.
    pub(crate) async fn review(
        &self,
        store: &StoreName,
        token: &SecretString,
        audience: &Audience,
        pod: &WorkloadIdentity,
    ) -> Result<(), ReviewFault> {
        if self.stores.contains(store) {
            self.cluster.review(token, audience, pod).await
        } else {
            Ok(())
        }
    }
}
