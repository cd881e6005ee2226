//! Refreshes that somebody asks for: `sotto-node refresh <namespace>/<pod>`.
//!
//! Invariant: who asks hears of an attempt that began after the question, of a refusal once it is confirmed,
//! and of a change once it can be read; all within a deadline. Several questions share one attempt. Nothing
//! is asked of the store that its gate holds back, and nothing read anew that a refresh doesn't read.

use std::time::Duration;

use sotto_core::identity::{ClassName, Namespace, PodName, VolumeId};
use sotto_core::rotation::ObjectResult;

use super::Volumes;
use super::error::VolumeError;
use super::owner::{Command, Reply};

/// How long one question may take: two attempts, a second between them, and a turn.
pub const REFRESH_DEADLINE: Duration = Duration::from_secs(20);
/// Questions that may wait for one volume.
const MOST_QUESTIONS: usize = 16;

/// What came of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// The store has what the volume shows.
    Unchanged,
    /// The store had new values; the volume shows them.
    Changed,
    /// The store refuses an object, confirmed once.
    Refused,
    /// The store did not answer, or was not asked since it can't answer: the last good values stay.
    Outage,
    /// New values, or what an edited class says, can't be served: the volume goes on as it was. Its event or the log says
    /// why.
    Unservable,
    /// The volume is being prepared, or nobody has it mounted.
    NotServed,
    /// The volume ended meanwhile.
    Ended,
    /// Nothing came of it in time.
    Late,
    /// Too many have asked.
    Busy,
}

impl Refreshed {
    /// What one attempt came to.
    pub(super) fn of(results: &[ObjectResult], has_changed: bool) -> Self {
        if results.contains(&ObjectResult::Outage) {
            Self::Outage
        } else if results.contains(&ObjectResult::Refused) {
            Self::Refused
        } else if has_changed {
            Self::Changed
        } else {
            Self::Unchanged
        }
    }

    /// What an edit came to that could not be followed.
    pub(super) fn of_failed_edit(error: &VolumeError) -> Self {
        match error {
            VolumeError::Released(_) | VolumeError::Ending(_) | VolumeError::ShuttingDown => {
                Self::Ended
            }
            error if error.is_outage() => Self::Outage,
            _ => Self::Unservable,
        }
    }

    /// One word, or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::Outage => "outage",
            Self::Unservable => "unservable",
            Self::NotServed => "not served",
            Self::Ended => "ended",
            Self::Late => "no answer in time",
            Self::Busy => "too many questions",
        }
    }

    /// Whether the volume shows what the store has.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Unchanged | Self::Changed)
    }
}

/// One volume's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshedVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Its class.
    pub class: ClassName,
    /// What came of it.
    pub result: Refreshed,
}

impl Volumes {
    /// Asks the store again for all volumes of a pod, now; each with what came of it.
    pub async fn refresh(&self, namespace: &Namespace, pod: &PodName) -> Vec<RefreshedVolume> {
        let asked = self.0.registry.of_pod(namespace, pod).into_iter().map(|spec| async move {
            let command = |reply| Command::Refresh { reply };
            let what = "the volume was not refreshed";
            let answer = self.ask(&spec.volume, what, REFRESH_DEADLINE, command).await;
            let result = answer.map_or_else(
                |error| match &*error {
                    VolumeError::Deadline { .. } => Refreshed::Late,
                    VolumeError::Busy(_) => Refreshed::Busy,
                    _no_answer => Refreshed::Ended,
                },
                |answer| answer.unwrap_or(Refreshed::Ended),
            );
            let (volume, class) = (spec.volume.clone(), spec.class.clone());
            RefreshedVolume { volume, class, result }
        });
        futures::future::join_all(asked).await
    }
}

/// Who waits for one volume's next refresh.
#[derive(Default)]
pub(super) struct Demand {
    /// For one that has not begun.
    waiting: Vec<Reply<Refreshed>>,
    /// For the one that has.
    under_way: Vec<Reply<Refreshed>>,
    /// What the one that has begun came to, until the volume shows it.
    result: Option<Refreshed>,
}

impl Demand {
    pub(super) fn ask(&mut self, reply: Reply<Refreshed>) {
        if self.waiting.len() < MOST_QUESTIONS {
            self.waiting.push(reply);
        } else {
            let _ = reply.send(Ok(Refreshed::Busy));
        }
    }

    /// Whether somebody asks for an attempt that has not begun.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self) {
        self.under_way.append(&mut self.waiting);
        self.result = None;
    }

    /// Whoever asks for another attempt hears of the one that has begun: there will be no other.
    pub(super) fn share(&mut self) {
        self.under_way.append(&mut self.waiting);
    }

    /// It came to this; `is_shown`: there is nothing to be turned to.
    pub(super) fn ended(&mut self, result: Refreshed, is_shown: bool) {
        self.result = Some(result);
        if is_shown {
            self.shown();
        }
    }

    /// The volume shows what the attempt came to.
    pub(super) fn shown(&mut self) {
        if let Some(result) = self.result.take() {
            for reply in self.under_way.drain(..) {
                let _ = reply.send(Ok(result));
            }
        }
    }
}
