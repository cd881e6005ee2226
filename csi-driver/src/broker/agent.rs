//! One connected agent, and the requests that the driver sends it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sotto_core::fuse_init::Negotiated;
use sotto_core::identity::VolumeId;
use sotto_handoff::link::{Answer, CallError, Link};
use sotto_handoff::message::{
    Assignment, Init, Notice, Ping, Prepare, Prepared, Release, Resolve, Return, Returned, Serve,
    Standby, Token, frame::Body,
};

use crate::credentials::Credentials;

/// Time for the answer to come back after the agent's own deadline.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// A connected agent; cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    instance: Arc<str>,
    link: Link,
    /// It left pings unanswered.
    silent: Arc<AtomicBool>,
    /// It is about to end.
    leaving: Arc<AtomicBool>,
}

impl Agent {
    /// An agent whose handshake is done.
    #[must_use]
    pub fn new(instance: &str, link: Link) -> Self {
        Self { instance: instance.into(), link, silent: Arc::default(), leaving: Arc::default() }
    }

    /// Its instance: the same over reconnects of one process, and for all workers of one supervisor.
    #[must_use]
    pub fn instance(&self) -> Arc<str> {
        Arc::clone(&self.instance)
    }

    /// Whether its link is alive.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.link.is_closed()
    }

    /// Whether its link is alive and it answers.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.is_live() && !self.silent.load(Ordering::Acquire)
    }

    /// Whether it may be given something new.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.answers() && !self.leaving.load(Ordering::Acquire)
    }

    /// Notes that it is about to end.
    pub(crate) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Notes whether it leaves pings unanswered.
    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Release);
    }

    /// Whether `other` is the same link of the same process.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.silent, &other.silent)
    }

    /// Has it say anything.
    ///
    /// # Errors
    /// It said nothing. A refusal is an answer: an agent of an earlier version knows no Ping.
    pub(super) async fn ping(&self, deadline: Duration) -> Result<(), CallError> {
        match self.link.call(Body::Ping(Ping {}), None, deadline).await {
            Ok(_) | Err(CallError::Refused(_) | CallError::Unknown) => Ok(()),
            Err(error @ (CallError::Deadline(_) | CallError::Closed | CallError::Packet(_))) => {
                Err(error)
            }
        }
    }

    /// Lets it fetch a volume's secrets. It is told to answer a second before `deadline`.
    ///
    /// # Errors
    /// Its refusal, or no answer.
    pub async fn prepare(
        &self,
        mut request: Prepare,
        deadline: Duration,
    ) -> Result<Prepared, CallError> {
        let own = deadline.saturating_sub(ANSWER_MARGIN).as_millis();
        request.deadline_ms = u64::try_from(own).unwrap_or(u64::MAX);
        match self.link.call(Body::Prepare(request), None, deadline).await?.body {
            Body::Prepared(prepared) => Ok(prepared),
            _ => Err(CallError::Unknown),
        }
    }

    /// Lets it serve a prepared volume on a connection; `resend`: another served it before.
    ///
    /// # Errors
    /// Its refusal, or no answer.
    pub async fn serve(
        &self,
        id: &VolumeId,
        init: Negotiated,
        resend: bool,
        connection: BorrowedFd<'_>,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let Negotiated { major, minor, max_readahead, flags, max_write } = init;
        let init = Some(Init { major, minor, max_readahead, flags, max_write });
        let serve = Serve { volume_id: id.as_str().to_owned(), init, resend };
        match self.link.call(Body::Serve(serve), Some(connection), deadline).await?.body {
            Body::Serving(_) => Ok(()),
            _ => Err(CallError::Unknown),
        }
    }

    /// Gives it a fresh token of the pod.
    ///
    /// # Errors
    /// Its refusal (NOT_FOUND: it doesn't serve the volume), or no answer.
    pub async fn token(
        &self,
        id: &VolumeId,
        credentials: &Credentials,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let volume_id = id.as_str().to_owned();
        let token = Token {
            volume_id,
            service_account_tokens: credentials.tokens.expose().to_vec(),
            publish_secrets: credentials.publish_secrets.expose().to_vec(),
        };
        match self.link.call(Body::Token(token), None, deadline).await?.body {
            Body::Acknowledged(_) => Ok(()),
            _ => Err(CallError::Unknown),
        }
    }

    /// Asks for the connection of a volume that it serves. The fd is whatever it sent.
    ///
    /// # Errors
    /// Its refusal (NOT_FOUND: it doesn't serve the volume), or no answer.
    pub async fn give_back(
        &self,
        id: &VolumeId,
        deadline: Duration,
    ) -> Result<(Returned, Option<OwnedFd>), CallError> {
        let request = Body::Return(Return { volume_id: id.as_str().to_owned() });
        match self.link.call(request, None, deadline).await? {
            Answer { body: Body::Returned(returned), fd } => Ok((returned, fd)),
            _ => Err(CallError::Unknown),
        }
    }

    /// Tells it how many of another agent's volumes it holds ready.
    ///
    /// # Errors
    /// Its refusal, or no answer.
    pub async fn stands_by(&self, standby: Standby, deadline: Duration) -> Result<(), CallError> {
        match self.link.call(Body::Standby(standby), None, deadline).await?.body {
            Body::Acknowledged(_) => Ok(()),
            _ => Err(CallError::Unknown),
        }
    }

    /// Has the author of a pod told of something.
    ///
    /// # Errors
    /// Its refusal, or no answer.
    pub async fn note(&self, notice: Notice, deadline: Duration) -> Result<(), CallError> {
        match self.link.call(Body::Notice(notice), None, deadline).await?.body {
            Body::Acknowledged(_) => Ok(()),
            _ => Err(CallError::Unknown),
        }
    }

    /// Asks what the sidecar of a pod is to serve. It is told to answer a second before `deadline`.
    ///
    /// # Errors
    /// Its refusal, or no answer.
    pub async fn resolve(
        &self,
        mut request: Resolve,
        deadline: Duration,
    ) -> Result<Option<Assignment>, CallError> {
        let own = deadline.saturating_sub(ANSWER_MARGIN).as_millis();
        request.deadline_ms = u64::try_from(own).unwrap_or(u64::MAX);
        match self.link.call(Body::Resolve(request), None, deadline).await?.body {
            Body::Resolved(resolved) => Ok(resolved.assignment),
            _ => Err(CallError::Unknown),
        }
    }

    /// Tells it that a volume is gone.
    ///
    /// # Errors
    /// Its refusal, or no answer.
    pub async fn release(&self, id: &VolumeId, deadline: Duration) -> Result<(), CallError> {
        let release = Release { volume_id: id.as_str().to_owned() };
        match self.link.call(Body::Release(release), None, deadline).await?.body {
            Body::Released(_) => Ok(()),
            _ => Err(CallError::Unknown),
        }
    }
}
