//! What the driver asks. The first Prepare says what to serve; everything after it is the volume's own.
//!
//! Invariant: the pod's token never goes back to the driver, which is not to have it; what the driver sends in its
//! place is thrown away. Once the process ends nothing new is begun.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sotto_handoff::link::{Answer, Handler};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Acknowledged, Code, Pong, Prepare, Released, Returned};
use sotto_handoff::refusal::Refusal;
use tokio::sync::RwLock;
use tokio::time::Instant;
use zeroize::Zeroize;

use crate::assignment::{Assigned, AssignmentError};
use crate::beginning::Beginning;
use crate::serving::{Parts, Serving};

/// A Prepare without a deadline of its own; the driver gives up before kubelet does.
const LONGEST: Duration = Duration::from_secs(110);
/// What is left of a deadline for the store, once a fresh token was waited for.
const FOR_THE_STORE: Duration = Duration::from_secs(2);

/// Answers the driver; cheap to clone.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

struct Shared {
    parts: Parts,
    serving: RwLock<Option<Arc<Serving>>>,
    is_ending: AtomicBool,
}

impl Requests {
    /// Nothing is served yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (serving, is_ending) = (RwLock::new(None), AtomicBool::new(false));
        Self(Arc::new(Shared { parts, serving, is_ending }))
    }

    /// Serves on what a former worker served.
    ///
    /// # Errors
    /// What it was assigned can't be used.
    pub async fn resume(&self, beginning: &Beginning) -> Result<Arc<Serving>, Refusal> {
        let assignment = beginning.message().assignment.clone().unwrap_or_default();
        let assigned = Assigned::read(assignment)?;
        self.serving_as(beginning, &assigned).await
    }

    /// What serves, if anything does.
    pub async fn serving(&self) -> Option<Arc<Serving>> {
        self.0.serving.read().await.clone()
    }

    /// Begins nothing new from here on.
    pub fn end(&self) {
        self.0.is_ending.store(true, Ordering::Release);
    }

    async fn prepare(&self, mut message: Prepare) -> Result<Answer, Refusal> {
        // A driver that follows its contract sends none.
        message.service_account_tokens.zeroize();
        message.publish_secrets.zeroize();
        let begun = Instant::now();
        let assignment = message.assignment.take();
        let assignment = assignment
            .ok_or_else(|| AssignmentError::new("the driver sent none: upgrade sotto-csi"))?;
        let beginning = Beginning::of(&message, assignment.clone());
        let assigned = Assigned::read(assignment.clone())?;
        let serving = self.serving_as(&beginning, &assigned).await?;
        // Other settings than the volume has: it goes over to them with its next refresh.
        let settings = serving.classes.candidates().settings(&assigned, assignment).await?;
        serving.classes.deliver(beginning, (assigned, settings));
        let longest = match message.deadline_ms {
            0 => LONGEST,
            left => Duration::from_millis(left).min(LONGEST),
        };
        message.service_account_tokens = token(&serving, begun + longest).await?;
        let left = longest.saturating_sub(begun.elapsed()).as_millis().max(1);
        message.deadline_ms = u64::try_from(left).unwrap_or(u64::MAX);
        serving.volumes.handle(Body::Prepare(message), None).await
    }

    async fn serving_as(
        &self,
        beginning: &Beginning,
        assigned: &Assigned,
    ) -> Result<Arc<Serving>, Refusal> {
        if let Some(serving) = self.serving().await {
            return Ok(serving);
        }
        let mut place = self.0.serving.write().await;
        if let Some(serving) = &*place {
            return Ok(Arc::clone(serving));
        }
        let serving = Serving::start(&self.0.parts, beginning, assigned).await?;
        *place = Some(Arc::clone(&serving));
        Ok(serving)
    }
}

/// The pod's token for a volume that is to be fetched. One that is there already doesn't wait for it: a driver
/// that was restarted asks for it again, however old the token is.
async fn token(serving: &Serving, end: Instant) -> Result<Vec<u8>, Refusal> {
    let mut tokens = if serving.volumes.count() > 0 {
        serving.token.now().await.unwrap_or_default()
    } else {
        let left = end.saturating_duration_since(Instant::now());
        serving.token.by(end - FOR_THE_STORE.min(left / 2)).await?
    };
    Ok(std::mem::take(&mut *tokens))
}

impl Handler for Requests {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        if self.0.is_ending.load(Ordering::Acquire)
            && matches!(body, Body::Prepare(_) | Body::Serve(_))
        {
            return Err(Refusal::new(Code::Unavailable, "the sidecar is ending"));
        }
        match body {
            Body::Ping(_) => Ok(Body::Pong(Pong {}).into()),
            Body::Prepare(message) => self.prepare(message).await,
            Body::Token(mut message) => {
                message.service_account_tokens.zeroize();
                let message = "a sidecar has a token of its own";
                Err(Refusal::new(Code::FailedPrecondition, message))
            }
            body => match (self.serving().await, body) {
                (Some(serving), Body::Return(wanted)) => {
                    let answer = serving.volumes.handle(Body::Return(wanted), fd).await?;
                    Ok(without_token(answer))
                }
                (Some(serving), body) => serving.volumes.handle(body, fd).await,
                // A volume that isn't known is released already.
                (None, Body::Release(_)) => Ok(Body::Released(Released {}).into()),
                (None, Body::Standby(_)) => Ok(Body::Acknowledged(Acknowledged {}).into()),
                (None, Body::Serve(_) | Body::Return(_)) => {
                    Err(Refusal::new(Code::NotFound, "nothing is prepared"))
                }
                (None, _) => {
                    Err(Refusal::new(Code::Unimplemented, "a sidecar doesn't take this request"))
                }
            },
        }
    }
}

fn without_token(answer: Answer) -> Answer {
    match answer.body {
        Body::Returned(mut returned) => {
            returned.service_account_tokens.zeroize();
            let body = Body::Returned(Returned { service_account_tokens: Vec::new(), ..returned });
            Answer { body, ..answer }
        }
        body => Answer { body, ..answer },
    }
}
