//! What the driver asks, answered and counted.

use std::os::fd::OwnedFd;

use sotto_core::audit::AuditAction;
use sotto_handoff::link::{Answer, Handler};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Acknowledged, Code, Notice, Pong, Released, Serving};
use sotto_handoff::refusal::Refusal;
use sotto_runtime::metrics::Request;
use tokio::time::Instant;

use super::{RequestError, Volumes, refusal, request};
use crate::reporter::{HANDOFF_REFUSED, Severity, from_driver};

impl Handler for Volumes {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        if matches!(body, Body::Ping(_)) {
            return Ok(Body::Pong(Pong {}).into());
        }
        let Some(request) = name_of(&body) else {
            return Err(Refusal::new(Code::Unimplemented, "the agent doesn't take this request"));
        };
        let begun = Instant::now();
        let answered = self.answer(body, fd).await;
        let metrics = &self.0.services.metrics;
        if request == "prepare" {
            metrics.prepare_seconds.observe(begun.elapsed().as_secs_f64());
        }
        let code = answered.as_ref().err().map_or("ok", |refusal| code_name(refusal.code()));
        metrics.requests.get_or_create(&Request { request, code }).inc();
        answered
    }
}

impl Volumes {
    async fn answer(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        let answered = match body {
            Body::Return(message) => {
                return self.give_back(&message).await.map_err(|error| refusal::of(&error));
            }
            Body::Prepare(message) => self.prepare(message).await.map(Body::Prepared),
            Body::Serve(message) => {
                self.serve(message, fd).await.map(|()| Body::Serving(Serving {}))
            }
            Body::Token(message) => {
                self.token(message).await.map(|()| Body::Acknowledged(Acknowledged {}))
            }
            Body::Release(message) => {
                self.release(&message).await.map(|()| Body::Released(Released {}))
            }
            Body::Standby(message) => {
                self.0.standby.send_replace(Some(message));
                return Ok(Body::Acknowledged(Acknowledged {}).into());
            }
            Body::Notice(message) => {
                let noted = self.note(message).map_err(|error| refusal::of(&error.into()));
                return noted.map(|()| Body::Acknowledged(Acknowledged {}).into());
            }
            _ => return Err(Refusal::new(Code::Unimplemented, "no such request")),
        };
        answered.map(Answer::from).map_err(|error| refusal::of(&error))
    }

    /// The driver can't tell the API server; the agent can.
    fn note(&self, notice: Notice) -> Result<(), RequestError> {
        let Notice { pod, reason, message } = notice;
        let pod = request::identity(pod.ok_or(RequestError::NoPod)?)?;
        if reason == HANDOFF_REFUSED {
            self.0.services.audit.denied(AuditAction::Handoff, &pod, message.clone());
        }
        if let Some(reason) = from_driver(&reason) {
            self.0.services.reporter.report(&pod, Severity::Warning, reason, message);
        } else {
            tracing::warn!(%pod, reason, message, "the driver has something to say");
        }
        Ok(())
    }
}

/// Requests that an agent takes.
fn name_of(body: &Body) -> Option<&'static str> {
    Some(match body {
        Body::Prepare(_) => "prepare",
        Body::Serve(_) => "serve",
        Body::Token(_) => "token",
        Body::Release(_) => "release",
        Body::Return(_) => "return",
        Body::Notice(_) => "notice",
        Body::Standby(_) => "standby",
        _ => return None,
    })
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Unspecified => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::PermissionDenied => "permission_denied",
        Code::Unauthenticated => "unauthenticated",
        Code::FailedPrecondition => "failed_precondition",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
    }
}
