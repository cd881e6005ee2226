//! Everything that goes wrong with a real store, on demand.

use std::time::Duration;

use super::reply;
use super::state::Operation;
use crate::https::Answer;

/// One way to fail.
#[derive(Debug, Clone)]
pub enum Fault {
    /// 503 `Vault is sealed`.
    Sealed,
    /// 500: a standby whose leader is gone.
    NoLeader,
    /// 400: a standby that is behind.
    Upgrading,
    /// 429, with `Retry-After` in seconds where there is one.
    RateLimited(Option<u64>),
    /// 403 as a policy denies.
    Denied,
    /// 403 as for a token that was revoked.
    InvalidToken,
    /// 307 to this location.
    Redirect(String),
    /// This status with an error that says nothing.
    Status(u16),
    /// 200 with something that isn't JSON.
    Garbage,
    /// The right answer, late.
    Slow(Duration),
    /// No answer.
    Hang,
    /// The connection ends without an answer.
    Disconnect,
}

/// What a fault makes of a request.
pub(super) enum Effect {
    Answer(Answer),
    Delay(Duration),
    Hang,
    Cut,
}

impl Fault {
    pub(super) fn effect(&self, path: &str) -> Effect {
        Effect::Answer(match self {
            Self::Slow(delay) => return Effect::Delay(*delay),
            Self::Hang => return Effect::Hang,
            Self::Disconnect => return Effect::Cut,
            Self::Sealed => reply::error(503, reply::SEALED),
            Self::NoLeader => {
                reply::error(500, "local node not active but active cluster node not found")
            }
            Self::Upgrading => reply::error(
                400,
                "Waiting for the primary to upgrade from non-versioned to versioned data. This \
                 backend will be unavailable for a brief period and will resume service when the \
                 primary is finished.",
            ),
            Self::RateLimited(seconds) => rate_limited(path, *seconds),
            Self::Denied => reply::error(403, reply::POLICY_DENIES),
            Self::InvalidToken => reply::error(403, reply::INVALID_TOKEN),
            Self::Redirect(location) => redirect(location),
            Self::Status(status) => reply::error(*status, "a planned fault"),
            Self::Garbage => {
                let mut answer = reply::no_content();
                (answer.status, answer.body) = (200, "<html>not JSON</html>".into());
                answer
            }
        })
    }
}

fn rate_limited(path: &str, seconds: Option<u64>) -> Answer {
    let message = format!("request path {path:?}: rate limit quota exceeded");
    let mut answer = reply::error(429, &message);
    answer.headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
    answer
}

/// What Go's HTTP server writes.
pub(super) fn redirect(location: &str) -> Answer {
    Answer {
        status: 307,
        headers: vec![
            ("content-type", "text/html; charset=utf-8".to_owned()),
            ("location", location.to_owned()),
        ],
        body: format!("<a href=\"{location}\">Temporary Redirect</a>.\n\n").into(),
    }
}

/// The faults that are planned, oldest first.
#[derive(Default)]
pub(super) struct Faults(Vec<Planned>);

struct Planned {
    operation: Option<Operation>,
    fault: Fault,
    left: Option<usize>,
}

impl Faults {
    pub(super) fn add(&mut self, operation: Option<Operation>, fault: Fault, times: Option<usize>) {
        self.0.push(Planned { operation, fault, left: times });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that this request meets, used up by one.
    pub(super) fn take(&mut self, operation: Operation) -> Option<Fault> {
        let fits = |planned: &Planned| {
            planned.left != Some(0) && planned.operation.is_none_or(|it| it == operation)
        };
        let planned = self.0.iter_mut().find(|planned| fits(planned))?;
        planned.left = planned.left.map(|left| left - 1);
        Some(planned.fault.clone())
    }
}
