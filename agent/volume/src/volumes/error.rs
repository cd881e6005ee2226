//! Why a request about a volume is refused: what a pod's event will show.

use std::time::Duration;

use sotto_core::identity::{Audience, ClassName, StoreName, VolumeId};
use sotto_core::snapshot::SnapshotError;
use sotto_store::grammar::PlanError;
use sotto_store::{ObjectError, StoreError};

use super::request::RequestError;
use crate::classes::ClassError;
use crate::cluster::ReviewFault;
use crate::token::{TokenMapError, VerifyError};

/// Most objects or parameters that one message names.
const MOST_NAMED: usize = 5;

/// Why a request about a volume is refused. Messages never carry a value or a token.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The request itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The class.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// The class's parameters.
    #[error("SecretProviderClass {class}: {}", listed(errors.iter().map(ToString::to_string)))]
    Plan {
        /// The class.
        class: ClassName,
        /// All its faults.
        errors: Vec<PlanError>,
    },
    /// The pod's tokens.
    #[error(transparent)]
    Tokens(#[from] TokenMapError),
    /// The pod's token is not believed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The API server's review of the token.
    #[error(transparent)]
    Review(#[from] ReviewFault),
    /// The login.
    #[error(transparent)]
    Login(StoreError),
    /// Objects that could not be read.
    #[error("{}", listed(told(.0)))]
    Objects(Vec<ObjectFault>),
    /// Objects that can't be one volume.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Too slow.
    #[error("{what} within {}", humantime::format_duration(*deadline))]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        deadline: Duration,
    },
    /// Released while it was prepared.
    #[error("volume {0} was released before it was ready")]
    Released(VolumeId),
    /// The owner is just ending.
    #[error("volume {0} is just being released: try again")]
    Ending(VolumeId),
    /// The agent is ending.
    #[error("the agent is shutting down: its successor takes the request")]
    ShuttingDown,
    /// Too many on this node.
    #[error("this node serves {limit} volumes already: {remedy}, or run the pod elsewhere")]
    TooManyVolumes {
        /// The limit.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The id belongs to another pod, or to other attributes.
    #[error("volume {0} is known with another pod or other attributes: release it first")]
    KnownOtherwise(VolumeId),
    /// A plan for a store that isn't there.
    #[error("store {0} is not configured")]
    NoSuchStore(StoreName),
    /// The class was edited to another audience.
    #[error(
        "the class wants a token for audience {audience} now, which kubelet has not given for this volume: \
         restart the pod"
    )]
    OtherAudience {
        /// The audience.
        audience: Audience,
    },
    /// No such volume.
    #[error("volume {0} is not prepared")]
    Unknown(VolumeId),
    /// Its secrets aren't here yet.
    #[error("volume {0} is still being prepared")]
    NotReady(VolumeId),
    /// Too many requests about it.
    #[error("volume {0} has too many requests waiting: try again")]
    Busy(VolumeId),
    /// A Serve without its fd or what was negotiated.
    #[error("the request carries no FUSE connection")]
    NoConnection,
    /// The FUSE server could not be started.
    #[error("the FUSE connection of volume {volume} can't be served: {reason}")]
    Attach {
        /// The volume.
        volume: VolumeId,
        /// Why.
        reason: String,
    },
}

impl VolumeError {
    /// Whether the store, or the way to it, is down or too busy: what it has may be good.
    pub(super) fn is_outage(&self) -> bool {
        let of_store = StoreError::is_of_the_whole_store;
        match self {
            Self::Login(error) => of_store(error),
            Self::Objects(faults) => faults.iter().any(|fault| match &fault.error {
                ObjectError::Store(error) => of_store(error),
                _ => false,
            }),
            Self::Deadline { .. } => true,
            Self::Request(_)
            | Self::Class(_)
            | Self::Plan { .. }
            | Self::Tokens(_)
            | Self::Verify(_)
            | Self::Review(_)
            | Self::Snapshot(_)
            | Self::Released(_)
            | Self::Ending(_)
            | Self::ShuttingDown
            | Self::TooManyVolumes { .. }
            | Self::KnownOtherwise(_)
            | Self::NoSuchStore(_)
            | Self::OtherAudience { .. }
            | Self::Unknown(_)
            | Self::NotReady(_)
            | Self::Busy(_)
            | Self::NoConnection
            | Self::Attach { .. } => false,
        }
    }
}

/// One object that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFault {
    /// Its index in the class's `objects`.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Why.
    pub error: ObjectError,
}

/// A store that is down fails every object in the same words: they are said once.
fn told(faults: &[ObjectFault]) -> impl Iterator<Item = String> + '_ {
    let mut of_store: Vec<&StoreError> = Vec::new();
    faults.iter().filter_map(move |ObjectFault { index, name, error }| match error {
        ObjectError::Store(error) if of_store.contains(&error) => None,
        ObjectError::Store(error) => {
            of_store.push(error);
            Some(error.to_string())
        }
        error => Some(format!("object {index} ({name}): {error}")),
    })
}

fn listed(messages: impl Iterator<Item = String>) -> String {
    let mut messages: Vec<_> = messages.collect();
    let more = messages.len().saturating_sub(MOST_NAMED);
    messages.truncate(MOST_NAMED);
    let listed = messages.join("; ");
    if more == 0 { listed } else { format!("{listed}; and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_the_stores_and_one_object_that_met_it_tells() {
        let store = StoreName::parse("main").unwrap();
        let sealed = || StoreError::Sealed { store: store.clone() };
        let large = || StoreError::TooLarge { store: store.clone(), limit: 1 };
        let objects = |errors: Vec<StoreError>| {
            let fault = |(index, error)| ObjectFault {
                index,
                name: "x".to_owned(),
                error: ObjectError::Store(error),
            };
            VolumeError::Objects(errors.into_iter().enumerate().map(fault).collect())
        };
        assert!(VolumeError::Login(sealed()).is_outage());
        assert!(!VolumeError::Login(large()).is_outage());
        assert!(objects(vec![large(), sealed()]).is_outage());
        assert!(!objects(vec![large()]).is_outage());
        assert!(!VolumeError::NoSuchStore(store.clone()).is_outage());
        let late = VolumeError::Deadline { what: "x", deadline: Duration::ZERO };
        assert!(late.is_outage());
    }
}
