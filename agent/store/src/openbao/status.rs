//! The table from an answer's status and body to what it means.
//!
//! Invariant: only words of the store itself count as a refusal. A 403 or 404 without the API's JSON comes
//! from something in front of the store, and says nothing about a secret.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sotto_core::identity::StoreName;

use crate::error::StoreError;
use crate::text;

/// Longest pause that a store can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What an answer means to the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 2xx.
    Success,
    /// The store's own 404.
    NotFound,
    /// The store doesn't take the request.
    BadRequest,
    /// The token is not good: a new login may help.
    InvalidToken,
    /// The token is good, and its policy says no: a new login can't help.
    PolicyDenied,
    /// To another host or path.
    Redirect,
    /// Nothing certain.
    Unexpected,
}

/// The store can't answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its active node gets ready.
    PrimaryUpgrading,
    /// This node knows no active one.
    NoActiveNode,
    /// This node hasn't seen yet what we have.
    NotCaughtUp,
    /// Sealed.
    Sealed,
    /// Too many requests.
    RateLimited(Option<Duration>),
    /// Down, or something in front of it says so.
    Unavailable(StatusCode, Option<Duration>),
}

impl Trouble {
    /// Whether another node may answer.
    pub(super) fn is_of_one_node(self) -> bool {
        match self {
            Self::PrimaryUpgrading
            | Self::NoActiveNode
            | Self::NotCaughtUp
            | Self::Sealed
            | Self::Unavailable(..) => true,
            Self::RateLimited(_) => false,
        }
    }

    /// Whether it may be over in a moment.
    pub(super) fn passes_soon(self) -> bool {
        match self {
            Self::PrimaryUpgrading | Self::NoActiveNode | Self::NotCaughtUp => true,
            Self::Unavailable(_, retry_after) => retry_after.is_none(),
            Self::Sealed | Self::RateLimited(_) => false,
        }
    }

    /// Whether the request was certainly not carried out.
    pub(super) fn did_nothing(self) -> bool {
        !matches!(self, Self::Unavailable(..))
    }

    pub(super) fn into_error(self, store: StoreName) -> StoreError {
        let not_active =
            |store, reason: &str| StoreError::NotActive { store, reason: reason.into() };
        match self {
            Self::PrimaryUpgrading => not_active(store, "its active node is upgrading"),
            Self::NoActiveNode => not_active(store, "a failover is going on"),
            Self::NotCaughtUp => not_active(store, "a standby has not caught up"),
            Self::Sealed => StoreError::Sealed { store },
            Self::RateLimited(retry_after) => StoreError::RateLimited { store, retry_after },
            Self::Unavailable(status, retry_after) => {
                StoreError::Unavailable { store, status, retry_after }
            }
        }
    }
}

/// What the store says besides its status.
pub(super) struct Words {
    errors: Vec<String>,
    is_of_the_api: bool,
}

#[derive(Deserialize)]
struct Said {
    errors: Option<Vec<String>>,
    #[serde(default)]
    data: Present,
    #[serde(default)]
    warnings: Present,
}

/// Whether a key is there at all, be it null.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl Words {
    pub(super) fn of(body: &[u8]) -> Self {
        match serde_json::from_slice::<Said>(body) {
            Ok(said) => Self {
                is_of_the_api: said.errors.is_some() || said.data.0 || said.warnings.0,
                errors: said.errors.unwrap_or_default(),
            },
            Err(_) => Self { errors: Vec::new(), is_of_the_api: false },
        }
    }

    /// For a message; `secrets` were sent and must not come back.
    pub(super) fn reason(&self, secrets: &[&str]) -> String {
        text::reason(&self.errors, secrets)
    }

    pub(super) fn mention(&self, part: &str) -> bool {
        self.errors.iter().any(|error| error.contains(part))
    }
}

/// Reads the table.
pub(super) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    words: &Words,
) -> Result<Verdict, Trouble> {
    let unavailable = || Err(Trouble::Unavailable(status, retry_after(headers)));
    match status.as_u16() {
        200..=299 => Ok(Verdict::Success),
        307 => Ok(Verdict::Redirect),
        400 if words.mention("Waiting for the primary to upgrade") => {
            Err(Trouble::PrimaryUpgrading)
        }
        400 | 405 if words.is_of_the_api => Ok(Verdict::BadRequest),
        403 => Ok(forbidden(words)),
        404 if words.is_of_the_api => Ok(Verdict::NotFound),
        412 => Err(Trouble::NotCaughtUp),
        429 => Err(Trouble::RateLimited(retry_after(headers))),
        500 if words.mention("active cluster node not found") => Err(Trouble::NoActiveNode),
        503 if words.mention("sealed") => Err(Trouble::Sealed),
        502..=504 => unavailable(),
        _nothing_certain => Ok(Verdict::Unexpected),
    }
}

/// A bad token is answered with the bare words, a policy's refusal with a list of errors. Newer versions
/// of Vault name the invalid token in such a list.
fn forbidden(words: &Words) -> Verdict {
    if words.errors.is_empty() {
        Verdict::Unexpected
    } else if words.mention("invalid token")
        || words.errors.iter().all(|error| error.trim() == "permission denied")
    {
        Verdict::InvalidToken
    } else {
        Verdict::PolicyDenied
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests;
