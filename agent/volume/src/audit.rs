//! The audit log: one JSON line for each decision, written by a thread of its own.
//!
//! Invariant: to record never waits, for it is called while a FUSE request is open. The queue is bounded;
//! what doesn't fit is counted, and the next line written says how many were lost, so that a gap is never
//! silent. Called by the volumes' owners and by the threads that serve.

mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use sotto_core::audit::{AuditAction, AuditRecord, Decision, Opener};
use sotto_core::clock::Clock;
use sotto_core::identity::{StoreName, VolumeId, WorkloadIdentity};
use sotto_core::snapshot::Generation;
use sotto_fuse::AuditSink;
use sotto_runtime::metrics::{self, AgentMetrics};
use tokio::sync::oneshot;

use writer::Writer;

/// Records that wait to be written: some 400 KiB.
const QUEUE: usize = 1_024;

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its thread could not be started.
    #[error("the audit log's thread could not be started")]
    Thread(#[source] std::io::Error),
}

enum Message {
    Record(Box<AuditRecord>),
    /// Answered once everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// Records that nobody writes yet.
pub struct HeldBack {
    messages: Receiver<Message>,
    lost: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

impl HeldBack {
    /// Writes them, and all that come, from a thread of its own.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn write_to(self, output: impl std::io::Write + Send + 'static) -> Result<(), AuditError> {
        let Self { messages, lost, clock } = self;
        let writer = Writer::new(output, lost, clock);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&messages))
            .map_err(AuditError::Thread)?;
        Ok(())
    }
}

/// A handle to the audit log; cheap to clone. The thread ends with the last handle.
#[derive(Clone)]
pub struct AuditLog {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    metrics: Option<Arc<AgentMetrics>>,
}

impl AuditLog {
    /// Writes to `output` from a thread of its own; times are by `clock`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        output: impl std::io::Write + Send + 'static,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let (log, held_back) = Self::held_back(clock);
        held_back.write_to(output)?;
        Ok(log)
    }

    /// Queues records until it is known where they are written to.
    #[must_use]
    pub fn held_back(clock: Arc<dyn Clock>) -> (Self, HeldBack) {
        let (queue, messages) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let held_back = HeldBack { messages, lost: Arc::clone(&lost), clock: Arc::clone(&clock) };
        (Self { queue, lost, clock, metrics: None }, held_back)
    }

    /// Counts opens there, too; those of records that are lost as well.
    #[must_use]
    pub fn counting(self, metrics: Arc<AgentMetrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Queues a record; never waits.
    pub fn record(&self, record: AuditRecord) {
        if self.queue.try_send(Message::Record(Box::new(record))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a refusal that concerns a pod rather than one volume of it.
    pub fn denied(&self, action: AuditAction, identity: WorkloadIdentity, reason: String) {
        let about = VolumeAudit { log: self.clone(), volume: None, identity, store: None };
        about.decided(action, Some(reason));
    }

    /// Records lost since the last line that told of some.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything recorded so far is written. False if that took longer than `deadline`.
    pub async fn flush(&self, deadline: Duration) -> bool {
        let flush = async {
            loop {
                let (written, done) = oneshot::channel();
                match self.queue.try_send(Message::Flush(written)) {
                    Ok(()) => return done.await.is_ok(),
                    // The writer has work: look again soon.
                    Err(TrySendError::Full(_)) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(TrySendError::Disconnected(_)) => return false,
                }
            }
        };
        tokio::time::timeout(deadline, flush).await.unwrap_or(false)
    }
}

/// The audit log as one volume writes it.
#[derive(Clone)]
pub struct VolumeAudit {
    log: AuditLog,
    volume: Option<VolumeId>,
    identity: WorkloadIdentity,
    store: Option<StoreName>,
}

impl VolumeAudit {
    /// Records about this volume of this pod.
    #[must_use]
    pub fn new(log: AuditLog, volume: VolumeId, identity: WorkloadIdentity) -> Self {
        Self { log, volume: Some(volume), identity, store: None }
    }

    /// From here on records name the store.
    pub fn set_store(&mut self, store: StoreName) {
        self.store = Some(store);
    }

    /// Records a decision about the whole volume: allowed, or denied for a reason.
    pub fn decided(&self, action: AuditAction, reason: Option<String>) {
        let decision = if reason.is_some() { Decision::Denied } else { Decision::Allowed };
        self.log.record(AuditRecord { reason, ..self.record(action, decision) });
    }

    fn record(&self, action: AuditAction, decision: Decision) -> AuditRecord {
        AuditRecord {
            time: self.log.clock.now(),
            action,
            decision,
            reason: None,
            volume: self.volume.clone(),
            identity: self.identity.clone(),
            store: self.store.clone(),
            object: None,
            generation: None,
            opener: None,
        }
    }
}

impl AuditSink for VolumeAudit {
    fn opened(&self, object: &str, generation: Generation, opener: Opener, decision: Decision) {
        if let Some(metrics) = &self.log.metrics {
            let decision = match decision {
                Decision::Allowed => "allowed",
                Decision::Denied => "denied",
            };
            metrics.opens.get_or_create(&metrics::Decision { decision }).inc();
        }
        self.log.record(AuditRecord {
            object: Some(object.to_owned()),
            generation: Some(generation),
            opener: Some(opener),
            ..self.record(AuditAction::Open, decision)
        });
    }
}

#[cfg(test)]
mod tests;
