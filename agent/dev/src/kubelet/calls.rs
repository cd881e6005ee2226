//! What a kubelet has asked of its driver, and when: for tests of cadence, of backoff, and of calls that
//! must not come.

use std::sync::{Mutex, PoisonError};

use sotto_proto::csi::v1::NodePublishVolumeRequest;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use super::{Kubelet, KubeletError};

/// Calls that are remembered; the oldest are forgotten beyond.
const REMEMBERED: usize = 10_000;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// NodePublishVolume.
    Publish,
    /// NodeUnpublishVolume.
    Unpublish,
}

/// One call that has been answered, or found nobody.
#[derive(Debug, Clone)]
pub struct Call {
    /// What was asked.
    pub kind: CallKind,
    /// The volume.
    pub volume_id: String,
    /// When it was sent.
    pub sent: Instant,
    /// When it was answered.
    pub answered: Instant,
    /// The answer.
    pub code: Code,
}

/// The calls so far.
#[derive(Default)]
pub(super) struct Calls {
    made: Mutex<Vec<Call>>,
    tick: watch::Sender<()>,
}

impl Calls {
    pub(super) fn made(&self) -> Vec<Call> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the calls satisfy a condition. The caller bounds the time.
    pub(super) async fn until(&self, condition: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        let mut ticks = self.tick.subscribe();
        loop {
            ticks.mark_unchanged();
            let made = self.made();
            if condition(&made) {
                return made;
            }
            if ticks.changed().await.is_err() {
                unreachable!("the calls own the sender");
            }
        }
    }

    pub(super) fn record(
        &self,
        (kind, volume_id): (CallKind, String),
        sent: Instant,
        answer: &Result<(), KubeletError>,
    ) {
        let code = answer.as_ref().err().map_or(Code::Ok, KubeletError::code);
        let call = Call { kind, volume_id, sent, answered: Instant::now(), code };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() == REMEMBERED {
            made.drain(..REMEMBERED / 2);
        }
        made.push(call);
        drop(made);
        self.tick.send_replace(());
    }
}

pub(super) fn publish(request: &NodePublishVolumeRequest) -> (CallKind, String) {
    (CallKind::Publish, request.volume_id.clone())
}

impl Kubelet {
    /// What was asked of the driver so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.made()
    }

    /// Waits until the calls so far satisfy a condition; returns them. The caller bounds the time.
    pub async fn until_calls(&self, condition: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        self.calls.until(condition).await
    }
}
