//! Errors to gRPC codes. kubelet shows the message in the pod's event, word for word.

use sotto_handoff::link::CallError;
use sotto_handoff::message::Code as AgentCode;
use tonic::{Code, Status};

use super::checks::Invalid;
use crate::publish::PublishError;
use crate::sidecar::AssignmentError;
use crate::unpublish::UnpublishError;

impl From<Invalid> for Status {
    fn from(error: Invalid) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<PublishError> for Status {
    fn from(error: PublishError) -> Self {
        Self::new(of_publish(&error), error.to_string())
    }
}

impl From<UnpublishError> for Status {
    fn from(error: UnpublishError) -> Self {
        let code = match &error {
            UnpublishError::Busy(_) => Code::Aborted,
            UnpublishError::Target(..) | UnpublishError::Journal(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

fn of_publish(error: &PublishError) -> Code {
    match error {
        PublishError::Busy(_) => Code::Aborted,
        PublishError::Leaving | PublishError::NoAgent(_) => Code::Unavailable,
        PublishError::Full(_) => Code::ResourceExhausted,
        PublishError::Invalid(invalid) => invalid.code(),
        PublishError::OtherTarget(_) => Code::AlreadyExists,
        PublishError::Target(..) | PublishError::SecondHandoff => Code::FailedPrecondition,
        PublishError::Agent(error) => of_call(error),
        PublishError::Assignment(error) => match error {
            AssignmentError::NoAgent(_) => Code::Unavailable,
            AssignmentError::Agent(error) => of_call(error),
            AssignmentError::Empty => Code::Internal,
        },
        PublishError::MountTable(_)
        | PublishError::Mount(_)
        | PublishError::Attach(_)
        | PublishError::Handoff(_)
        | PublishError::Journal(_) => Code::Internal,
    }
}

fn of_call(error: &CallError) -> Code {
    match error {
        CallError::Refused(refusal) => of_agent(refusal.code()),
        CallError::Deadline(_) => Code::DeadlineExceeded,
        CallError::Closed | CallError::Packet(_) => Code::Unavailable,
        CallError::Unknown => Code::Internal,
    }
}

fn of_agent(code: AgentCode) -> Code {
    match code {
        AgentCode::InvalidArgument => Code::InvalidArgument,
        AgentCode::NotFound => Code::NotFound,
        AgentCode::PermissionDenied => Code::PermissionDenied,
        AgentCode::Unauthenticated => Code::Unauthenticated,
        AgentCode::FailedPrecondition => Code::FailedPrecondition,
        AgentCode::ResourceExhausted => Code::ResourceExhausted,
        AgentCode::Unavailable => Code::Unavailable,
        AgentCode::DeadlineExceeded => Code::DeadlineExceeded,
        AgentCode::Unimplemented => Code::Unimplemented,
        AgentCode::Internal | AgentCode::Unspecified => Code::Internal,
    }
}

/// The code's name, for a metric.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_handoff::refusal::Refusal;

    #[test]
    fn an_agents_reason_is_the_whole_message() {
        let reason = "no such secret at secret/data/payments/db (store main)";
        let refusal = Refusal::new(AgentCode::NotFound, reason);
        let status = Status::from(PublishError::Agent(CallError::Refused(refusal)));
        assert_eq!((status.code(), status.message()), (Code::NotFound, reason));
    }

    #[test]
    fn an_agent_that_goes_away_is_named_and_kubelet_tries_again() {
        let status = Status::from(PublishError::Agent(CallError::Closed));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().starts_with("sotto-node gave no answer"), "{status}");
    }
}
