//! What a pod's sidecar is to serve and whom it may trust, as sotto-node resolved it.
//!
//! Invariant: pod and class are those that kubelet named. No token, no key and no value is in it.

use std::time::Duration;

use sotto_core::identity::VolumeId;
use sotto_handoff::link::CallError;
use sotto_handoff::message::{Assignment, Code, Resolve};
use sotto_handoff::refusal::Refusal;
use tokio::time::Instant;

use crate::broker::{Agent, NoAgent};
use crate::driver::Driver;
use crate::notices;
use crate::publish::agents_answer;
use crate::volume::{Volume, VolumeSpec};

/// How long sotto-node may take: it may have to ask the API server.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(20);
/// So young it need not be asked again: a sidecar starts right after its volume was published.
const YOUNG: Duration = Duration::from_secs(60);
/// Between two questions about one volume.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why it isn't known.
#[derive(Debug, thiserror::Error)]
pub enum AssignmentError {
    /// Nobody to ask.
    #[error(transparent)]
    NoAgent(#[from] NoAgent),
    /// sotto-node refused, and its reason is the whole text, or did not answer.
    #[error("{}", agents_answer(.0))]
    Agent(#[from] CallError),
    /// It answered without one.
    #[error("sotto-node said nothing of what the sidecar is to serve: upgrade it")]
    Empty,
}

impl From<AssignmentError> for Refusal {
    fn from(error: AssignmentError) -> Self {
        match error {
            AssignmentError::Agent(CallError::Refused(refusal)) => refusal,
            other => Self::new(Code::Unavailable, &other.to_string()),
        }
    }
}

/// Asks sotto-node about a pod's class.
pub(crate) async fn resolve(
    agent: &Agent,
    id: &VolumeId,
    spec: &VolumeSpec,
) -> Result<Assignment, AssignmentError> {
    let request = Resolve {
        volume_id: id.as_str().to_owned(),
        pod: Some(notices::pod(spec)),
        secret_provider_class: spec.class.as_str().to_owned(),
        ..Resolve::default()
    };
    agent.resolve(request, RESOLVE_DEADLINE).await?.ok_or(AssignmentError::Empty)
}

/// What the sidecar is to serve, for one that comes now. Without sotto-node the last word counts.
pub(crate) async fn current(
    driver: &Driver,
    volume: &Volume,
) -> Result<Assignment, AssignmentError> {
    let known = volume.assignment();
    if let Some((_, assignment)) = known.as_ref().filter(|(age, _)| *age < YOUNG) {
        return Ok(assignment.clone());
    }
    match (anew(driver, volume).await, known) {
        (Err(error), Some((_, assignment))) if is_outage(&error) => {
            tracing::warn!(volume = %volume.id, %error, "the sidecar is told what was known before");
            Ok(assignment)
        }
        (resolved, _) => resolved,
    }
}

/// What sotto-node says now. One question at a time and one a second for each volume, whoever wants it: it may be
/// one to the API server.
pub(crate) async fn anew(driver: &Driver, volume: &Volume) -> Result<Assignment, AssignmentError> {
    let mut may_ask = volume.may_ask.lock().await;
    tokio::time::sleep_until(*may_ask).await;
    *may_ask = Instant::now() + INTERVAL;
    let agent = driver.broker.current().ok_or(NoAgent)?;
    let assignment = resolve(&agent, &volume.id, &volume.spec).await.inspect_err(|error| {
        // What is refused now is not handed on from memory.
        if !is_outage(error) {
            volume.forget_assignment();
        }
    })?;
    volume.keep_assignment(assignment.clone());
    Ok(assignment)
}

fn is_outage(error: &AssignmentError) -> bool {
    match error {
        AssignmentError::Agent(CallError::Refused(refusal)) => {
            matches!(
                refusal.code(),
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Unimplemented
            )
        }
        AssignmentError::NoAgent(_) | AssignmentError::Agent(_) => true,
        AssignmentError::Empty => false,
    }
}
