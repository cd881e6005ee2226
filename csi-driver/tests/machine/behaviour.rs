//! What a played agent does otherwise than a real one.

use std::sync::Arc;
use std::time::Duration;

use sotto_handoff::refusal::Refusal;
use tokio::sync::Semaphore;

/// What an agent does when it is asked for a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Returning {
    /// It gives it back.
    #[default]
    Own,
    /// It is of the version before and doesn't know the question.
    Unknown,
    /// It gives another file.
    AnotherFile,
    /// It gives the connection of another volume that it serves.
    AnotherVolume,
}

/// What an agent does when it is pinged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pinging {
    /// It answers.
    #[default]
    Answered,
    /// As [`Returning::Unknown`].
    Unknown,
    /// It never answers.
    Ignored,
}

/// How an agent behaves.
#[derive(Default)]
pub(crate) struct Behaviour {
    pub(crate) refuse_prepare: Option<Refusal>,
    pub(crate) refuse_serve: Option<Refusal>,
    /// It thinks so long before it answers, so that the driver has nothing to do meanwhile.
    pub(crate) thinks: Duration,
    pub(crate) refuse_resolve: Option<Refusal>,
    /// Each Prepare takes one permit.
    pub(crate) gate: Option<Arc<Semaphore>>,
    /// Each Serve takes one permit, with the fd in hand.
    pub(crate) serve_gate: Option<Arc<Semaphore>>,
    pub(crate) returning: Returning,
    pub(crate) pinging: Pinging,
}
