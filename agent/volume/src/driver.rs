//! What a volume asks of the driver: the file-system operations of a rotation, which nobody else may make.
//!
//! Invariant: every call ends by its deadline; while the driver is away calls fail at once, and the caller
//! tries again later. Volumes are served on meanwhile.

pub mod link;

use std::os::fd::OwnedFd;
use std::time::Duration;

use sotto_core::identity::StoreName;
use sotto_handoff::link::{Answer, CallError, Link};
use sotto_handoff::message::{
    Assignment, ConnectProvider, Metrics, Resolve, Retire, Rotate, Touch, frame::Body,
};
use tokio::sync::watch;

/// Longer than the driver's own deadline for its helper, 2 s, and a turn among other volumes'.
const CALL_DEADLINE: Duration = Duration::from_secs(20);

/// A scrape must not take longer than whoever asks waits.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(2);

/// Why the driver did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DriverCallError {
    /// No link at the moment.
    #[error("the driver is not connected")]
    Away,
    /// It refused, or was too slow.
    #[error("the driver: {0}")]
    Call(#[from] CallError),
    /// It answered something else.
    #[error("the driver's answer is of another kind than its request")]
    Unexpected,
}

/// The link to the driver as it is at the moment; cheap to clone.
#[derive(Debug, Clone)]
pub struct DriverCalls(watch::Receiver<Option<Link>>);

impl DriverCalls {
    /// Calls over whatever link the sender last gave; none at first.
    #[must_use]
    pub fn channel() -> (watch::Sender<Option<Link>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Turns to a new generation.
    ///
    /// # Errors
    /// The driver is away, refused, or was too slow.
    pub async fn rotate(&self, request: Rotate) -> Result<(), DriverCallError> {
        match self.call(Body::Rotate(request)).await? {
            Body::Rotated(_) => Ok(()),
            _ => Err(DriverCallError::Unexpected),
        }
    }

    /// Removes an old generation; true if a bind mount still shows it, and it was hidden instead.
    ///
    /// # Errors
    /// The driver is away, refused, or was too slow.
    pub async fn retire(&self, request: Retire) -> Result<bool, DriverCallError> {
        match self.call(Body::Retire(request)).await? {
            Body::Retired(retired) => Ok(retired.bound),
            _ => Err(DriverCallError::Unexpected),
        }
    }

    /// Tells the watchers of a hidden generation's files.
    ///
    /// # Errors
    /// The driver is away, refused, or was too slow.
    pub async fn touch(&self, request: Touch) -> Result<(), DriverCallError> {
        match self.call(Body::Touch(request)).await? {
            Body::Acknowledged(_) => Ok(()),
            _ => Err(DriverCallError::Unexpected),
        }
    }

    /// Has a secrets-store provider's socket connected.
    ///
    /// # Errors
    /// The driver is away, refused, or was too slow.
    pub async fn connect_provider(&self, provider: &StoreName) -> Result<OwnedFd, DriverCallError> {
        let request = ConnectProvider { provider: provider.to_string() };
        let answer = self.ask(Body::ConnectProvider(request)).await?;
        match (answer.body, answer.fd) {
            (Body::ProviderConnected(_), Some(fd)) => Ok(fd),
            _ => Err(DriverCallError::Unexpected),
        }
    }

    /// What a sidecar is to serve, as it is now; the driver asks sotto-node.
    ///
    /// # Errors
    /// The driver is away, refused, or was too slow.
    pub async fn resolve(
        &self,
        request: Resolve,
        deadline: Duration,
    ) -> Result<Assignment, DriverCallError> {
        let link = self.0.borrow().clone().ok_or(DriverCallError::Away)?;
        match link.call(Body::Resolve(request), None, deadline).await?.body {
            Body::Resolved(resolved) => resolved.assignment.ok_or(DriverCallError::Unexpected),
            _ => Err(DriverCallError::Unexpected),
        }
    }

    /// The driver's own metrics, as text.
    ///
    /// # Errors
    /// The driver is away, refused, or was too slow.
    pub async fn metrics(&self) -> Result<String, DriverCallError> {
        let link = self.0.borrow().clone().ok_or(DriverCallError::Away)?;
        match link.call(Body::Metrics(Metrics {}), None, SCRAPE_DEADLINE).await?.body {
            Body::MetricsText(metrics) => Ok(metrics.text),
            _ => Err(DriverCallError::Unexpected),
        }
    }

    async fn call(&self, body: Body) -> Result<Body, DriverCallError> {
        Ok(self.ask(body).await?.body)
    }

    async fn ask(&self, body: Body) -> Result<Answer, DriverCallError> {
        let link = self.0.borrow().clone().ok_or(DriverCallError::Away)?;
        Ok(link.call(body, None, CALL_DEADLINE).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_driver_a_call_fails_at_once() {
        let (_link, calls) = DriverCalls::channel();
        let error = calls.rotate(Rotate::default()).await.unwrap_err();
        assert!(matches!(error, DriverCallError::Away));
    }
}
