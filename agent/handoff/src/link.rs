//! Requests and answers over one connection, in both directions at once.
//!
//! Invariant: every call ends by its deadline or with the connection; at most `max_requests` requests of
//! the peer are worked on at once, the next ones are refused with RESOURCE_EXHAUSTED and not queued;
//! answers that nobody waits for any more are dropped with their fd.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::message::{Code, Frame, frame::Body};
use crate::packet::{Connection, PacketError, Received};
use crate::refusal::Refusal;

/// How long a packet may wait for room in the peer's socket.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// What a side answers to its peer's requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped half-way when the connection ends, so it must be cancel-safe.
    fn handle(
        &self,
        body: Body,
        fd: Option<OwnedFd>,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// A side that takes no requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRequests;

impl Handler for NoRequests {
    async fn handle(&self, _: Body, _: Option<OwnedFd>) -> Result<Answer, Refusal> {
        Err(Refusal::new(Code::Unimplemented, "this side takes no requests"))
    }
}

/// A request's answer.
#[derive(Debug)]
pub struct Answer {
    /// The message.
    pub body: Body,
    /// The fd that goes with it.
    pub fd: Option<OwnedFd>,
}

impl From<Body> for Answer {
    fn from(body: Body) -> Self {
        Self { body, fd: None }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The peer said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No answer by the deadline; the peer may still act on the request.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The connection ended before the answer came.
    #[error("the connection ended before an answer came")]
    Closed,
    /// The request could not be sent.
    #[error("the request could not be sent")]
    Packet(#[from] PacketError),
    /// The answer has no body that this version knows.
    #[error("the answer is of a kind that this version doesn't know")]
    Unknown,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[error("the link ended")]
pub struct LinkEnd(#[from] pub PacketError);

/// A handle to a running connection; cheap to clone. The connection ends when its task is dropped.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    next: AtomicU64,
    /// `None` once the connection has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
}

impl Shared {
    fn with_waiting<T>(
        &self,
        act: impl FnOnce(&mut Option<HashMap<u64, oneshot::Sender<Answer>>>) -> T,
    ) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Forgets a call that its caller gave up.
struct Waiting<'a>(&'a Shared, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.with_waiting(|waiting| waiting.as_mut().and_then(|map| map.remove(&self.1)));
    }
}

impl Link {
    /// Splits a connection (after the handshake) into a handle and the task that runs it, which the
    /// caller spawns and owns.
    pub fn start<H: Handler>(
        connection: Connection,
        handler: Arc<H>,
        max_requests: usize,
    ) -> (Self, impl Future<Output = LinkEnd> + Send + 'static) {
        let (end, ended) = watch::channel(false);
        let shared = Arc::new(Shared {
            connection,
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let task = run(Arc::clone(&shared), handler, max_requests, End(Arc::clone(&shared), end));
        (Self { shared, ended }, task)
    }

    /// Asks the peer and waits for its answer.
    ///
    /// # Errors
    /// The peer refused, or there is no answer by `deadline`.
    pub async fn call(
        &self,
        body: Body,
        fd: Option<BorrowedFd<'_>>,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        let request = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared
            .with_waiting(|waiting| waiting.as_mut().map(|map| map.insert(request, sender)))
            .ok_or(CallError::Closed)?;
        let _forget = Waiting(&self.shared, request);
        let answer = tokio::time::timeout(deadline, async {
            let frame = Frame { request, answer: false, body: Some(body) };
            self.shared.connection.send(&frame, fd).await?;
            drop(frame);
            receiver.await.map_err(|_| CallError::Closed)
        })
        .await
        .map_err(|_| CallError::Deadline(deadline))??;
        match answer.body {
            Body::Refused(refused) => Err(Refusal::from(refused).into()),
            body => Ok(Answer { body, fd: answer.fd }),
        }
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.with_waiting(|waiting| waiting.is_none())
    }
}

/// Ends all waiting calls when the task ends, in whatever way.
struct End(Arc<Shared>, watch::Sender<bool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.with_waiting(Option::take);
        self.1.send_replace(true);
    }
}

async fn run<H: Handler>(
    shared: Arc<Shared>,
    handler: Arc<H>,
    max_requests: usize,
    _end: End,
) -> LinkEnd {
    let permits = Arc::new(Semaphore::new(max_requests));
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            // A peer that asks and doesn't read its answers is not listened to until it does.
            received = shared.connection.receive(), if requests.len() < 2 * max_requests => match received {
                Ok(received) if received.frame.answer => deliver(&shared, received),
                Ok(mut received) => {
                    let permit = Arc::clone(&permits).try_acquire_owned().ok();
                    if permit.is_none() {
                        received.fd = None;
                    }
                    requests.spawn(work(Arc::clone(&shared), Arc::clone(&handler), received, permit));
                }
                Err(error) => return LinkEnd(error),
            },
            Some(done) = requests.join_next() => {
                if let Err(error) = done {
                    tracing::error!(%error, "a request's handler panicked");
                }
            }
        }
    }
}

fn deliver(shared: &Shared, received: Received) {
    let Received { frame, fd } = received;
    let caller =
        shared.with_waiting(|waiting| waiting.as_mut().and_then(|map| map.remove(&frame.request)));
    if let (Some(caller), Some(body)) = (caller, frame.body) {
        // The caller may have given up in this very moment; its answer is dropped then.
        let _ = caller.send(Answer { body, fd });
    }
}

async fn work<H: Handler>(
    shared: Arc<Shared>,
    handler: Arc<H>,
    received: Received,
    permit: Option<OwnedSemaphorePermit>,
) {
    let Received { frame, fd } = received;
    let answer = match (frame.body, &permit) {
        (Some(body), Some(_)) => handler.handle(body, fd).await,
        (None, _) => Err(Refusal::new(Code::Unimplemented, "a request of a later version")),
        (_, None) => {
            Err(Refusal::new(Code::ResourceExhausted, "too many requests at once: try again"))
        }
    };
    let answer = answer.unwrap_or_else(|refusal| Answer::from(Body::Refused(refusal.into())));
    let fd = answer.fd;
    let frame = Frame { request: frame.request, answer: true, body: Some(answer.body) };
    let fd = fd.as_ref().map(std::os::fd::AsFd::as_fd);
    let sent = tokio::time::timeout(SEND_DEADLINE, shared.connection.send(&frame, fd)).await;
    if let Ok(Err(error)) = sent {
        tracing::debug!(%error, "an answer could not be sent");
    }
}

#[cfg(test)]
mod tests;
