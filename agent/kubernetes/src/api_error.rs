//! How a call to the API server can fail, told apart by what to do about it.
//!
//! No message of ours carries a request's body: the body may be a TokenReview.

use std::time::Duration;

use crate::calls::Call;
use crate::text;

/// Longest part of the server's own message that is kept.
const LONGEST_MESSAGE_BYTES: usize = 300;
/// The longest pause that a server can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it broke.
    #[error("the API server can't be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the API server did not answer within {0:?}")]
    Deadline(Duration),
    /// 429, or 503 with `Retry-After`.
    #[error("the API server asks for fewer requests")]
    Throttled {
        /// How long to wait, if it said so.
        after: Option<Duration>,
    },
    /// 5xx.
    #[error("the API server failed with status {code}: {message}")]
    Server {
        /// The status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// 401: our own credential.
    #[error(
        "the API server doesn't accept sotto-node's own credential (401): \
         look at its service account"
    )]
    Unauthorized,
    /// 403: RBAC, or a namespace that is ending.
    #[error("sotto-node may not {call}: apply the ClusterRole of deploy/base ({message})")]
    Forbidden {
        /// What it tried.
        call: Call,
        /// What the server said.
        message: String,
    },
    /// 404: no such object, or no such resource.
    #[error("{call}: not found ({message})")]
    NotFound {
        /// What it tried.
        call: Call,
        /// What the server said.
        message: String,
    },
    /// 409.
    #[error("{call}: somebody else changed it at the same time")]
    Conflict {
        /// What it tried.
        call: Call,
    },
    /// 410: the version asked for is too old.
    #[error("{call}: the version asked for is too old")]
    Gone {
        /// What it tried.
        call: Call,
    },
    /// 400, 413, 422 and other statuses that say that the request is wrong.
    #[error("{call}: refused with status {code}: {message}")]
    Refused {
        /// What it tried.
        call: Call,
        /// The status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// An answer that can't be read.
    #[error("{call}: the answer of the API server can't be read: {reason}")]
    Malformed {
        /// What it tried.
        call: Call,
        /// Where reading failed; never the text itself.
        reason: &'static str,
    },
}

impl ApiError {
    /// Whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Deadline(_)
            | Self::Throttled { .. }
            | Self::Server { .. }
            | Self::Malformed { .. } => true,
            Self::Unauthorized
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Gone { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// How long the server asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Throttled { after } = self { *after } else { None }
    }

    /// From a status code.
    pub(crate) fn from_code(call: Call, code: u16, message: &str) -> Self {
        let message = text::one_line(message, LONGEST_MESSAGE_BYTES);
        match code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden { call, message },
            404 => Self::NotFound { call, message },
            409 => Self::Conflict { call },
            410 => Self::Gone { call },
            429 => Self::Throttled { after: None },
            500.. => Self::Server { code, message },
            code => Self::Refused { call, code, message },
        }
    }

    /// From a `Status` object, of an answer or in mid-watch.
    pub(crate) fn from_status(call: Call, status: &kube::core::Status) -> Self {
        let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        match Self::from_code(call, status.code, &status.message) {
            Self::Throttled { .. } if asked > 0 => {
                Self::Throttled { after: Some(bounded(u64::from(asked))) }
            }
            error => error,
        }
    }

    /// From whatever kube met.
    pub(crate) fn from_kube(call: Call, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(call, &status),
            kube::Error::SerdeError(_) => {
                Self::Malformed { call, reason: "it isn't the JSON asked for" }
            }
            kube::Error::FromUtf8(_) => Self::Malformed { call, reason: "it isn't UTF-8" },
            kube::Error::Service(inner) => match inner.downcast_ref::<Throttled>() {
                Some(throttled) => Self::Throttled { after: Some(throttled.0) },
                None => Self::Unreachable(text::chain(&*inner)),
            },
            other => Self::Unreachable(text::chain(&other)),
        }
    }
}

/// What the client's lowest layer makes of an answer with `Retry-After`, which kube would drop.
#[derive(Debug, thiserror::Error)]
#[error("the API server asks to be left alone for {0:?}")]
pub(crate) struct Throttled(Duration);

impl Throttled {
    pub(crate) fn for_seconds(seconds: u64) -> Self {
        Self(bounded(seconds))
    }
}

fn bounded(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::LIST_CLASSES;

    #[test]
    fn statuses_are_told_apart_by_what_to_do() {
        let of = |code| ApiError::from_code(LIST_CLASSES, code, "m");
        assert_eq!(of(401), ApiError::Unauthorized);
        assert!(matches!(of(403), ApiError::Forbidden { .. }));
        assert!(matches!(of(404), ApiError::NotFound { .. }));
        assert!(matches!(of(409), ApiError::Conflict { .. }));
        assert!(matches!(of(410), ApiError::Gone { .. }));
        assert!(matches!(of(422), ApiError::Refused { code: 422, .. }));
        assert!(of(429).is_outage() && of(500).is_outage() && of(503).is_outage());
        assert!(!of(403).is_outage() && !of(422).is_outage());
    }

    #[test]
    fn a_missing_permission_names_verb_and_resource_and_what_to_do() {
        let text = ApiError::from_code(LIST_CLASSES, 403, "no\nway").to_string();
        assert_eq!(
            text,
            "sotto-node may not list secretproviderclasses.secrets-store.csi.x-k8s.io: \
             apply the ClusterRole of deploy/base (no way)"
        );
    }

    #[test]
    fn a_server_can_not_ask_for_an_endless_pause() {
        let status: kube::core::Status = serde_json::from_value(serde_json::json!(
            {"code": 429, "details": {"retryAfterSeconds": 86_400}}
        ))
        .unwrap();
        let error = ApiError::from_status(LIST_CLASSES, &status);
        assert_eq!(error.retry_after(), Some(LONGEST_RETRY_AFTER));
        assert_eq!(Throttled::for_seconds(u64::MAX).0, LONGEST_RETRY_AFTER);
    }
}
