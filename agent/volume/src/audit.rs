//! The audit log: one JSON line for each decision, written by a thread of its own.
//!
//! Invariant: to record never waits, for it is called while a FUSE request is open. The queue is bounded;
//! what doesn't fit is counted, and the next line written says how many were lost, so that a gap is never
//! silent. Called by the volumes' owners and by the threads that serve.

mod pace;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use sotto_core::audit::{AuditAction, AuditRecord, Decision, Opened, Opener, Subject};
use sotto_core::clock::Clock;
use sotto_core::identity::{StoreName, VolumeId, WorkloadIdentity};
use sotto_core::snapshot::Generation;
use sotto_fuse::AuditSink;
use sotto_runtime::metrics::{self, AgentMetrics, Counter};
use tokio::sync::oneshot;

use pace::Pace;
use writer::Writer;

/// Records that wait to be written: some 100 KiB. The writer looks as soon as they are half as many ([`pace`]).
const QUEUE: usize = 1_024;

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its thread could not be started.
    #[error("the audit log's thread could not be started")]
    Thread(#[source] std::io::Error),
}

enum Message {
    Record(Entry),
    /// Answered once everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// A record on its way: what all of a volume's records say is shared, not copied for each.
struct Entry {
    time: SystemTime,
    action: AuditAction,
    decision: Decision,
    reason: Option<String>,
    subject: Arc<Subject>,
    opened: Option<Opened>,
}

impl Entry {
    fn record(&self) -> AuditRecord<'_> {
        AuditRecord {
            time: self.time,
            action: self.action,
            decision: self.decision,
            reason: self.reason.as_deref(),
            subject: &self.subject,
            opened: self.opened.as_ref(),
        }
    }
}

/// Records that nobody writes yet.
pub struct HeldBack {
    messages: Receiver<Message>,
    lost: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    is_on: Arc<AtomicBool>,
    pace: Arc<Pace>,
}

impl HeldBack {
    /// Writes them, and all that come, from a thread of its own.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn write_to(self, output: impl std::io::Write + Send + 'static) -> Result<(), AuditError> {
        let Self { messages, lost, clock, pace, .. } = self;
        let writer = Writer::new(output, lost, clock, pace);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&messages))
            .map_err(AuditError::Thread)?;
        Ok(())
    }

    /// Nothing is recorded from here on, so that opens need not be asked for: see [`AuditSink::is_interested`].
    pub fn discard(self) {
        self.is_on.store(false, Ordering::Release);
    }
}

/// A handle to the audit log; cheap to clone. The thread ends with the last handle.
#[derive(Clone)]
pub struct AuditLog {
    queue: SyncSender<Message>,
    is_on: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    pace: Arc<Pace>,
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
        let (lost, is_on) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let pace = Arc::new(Pace::default());
        let held_back = HeldBack {
            messages,
            lost: Arc::clone(&lost),
            clock: Arc::clone(&clock),
            is_on: Arc::clone(&is_on),
            pace: Arc::clone(&pace),
        };
        (Self { queue, is_on, lost, clock, pace, metrics: None }, held_back)
    }

    /// Counts opens there, too; those of records that are lost as well.
    #[must_use]
    pub fn counting(self, metrics: Arc<AgentMetrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Queues a record; never waits.
    fn record(&self, entry: Entry) {
        if !self.is_on() {
            return;
        }
        self.pace.queueing();
        if self.queue.try_send(Message::Record(entry)).is_err() {
            self.pace.taken();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Records a refusal that concerns a pod rather than one volume of it.
    pub fn denied(&self, action: AuditAction, identity: &WorkloadIdentity, reason: String) {
        let subject = Arc::new(Subject::new(None, identity));
        let about = VolumeAudit { log: self.clone(), subject, opens: None };
        about.decided(action, Some(reason));
    }

    /// Records lost since the last line that told of some.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything recorded so far is written. False if that took longer than `deadline`.
    pub async fn flush(&self, deadline: Duration) -> bool {
        if !self.is_on() {
            return true;
        }
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
    subject: Arc<Subject>,
    opens: Option<OpenCounters>,
}

/// Of allowed and of denied opens: looked up once, not at each open.
#[derive(Clone)]
struct OpenCounters([Counter; 2]);

impl OpenCounters {
    fn of(metrics: &AgentMetrics) -> Self {
        Self(
            ["allowed", "denied"].map(|decision| {
                metrics.opens.get_or_create(&metrics::Decision { decision }).clone()
            }),
        )
    }

    fn count(&self, decision: Decision) {
        let Self([allowed, denied]) = self;
        match decision {
            Decision::Allowed => allowed.inc(),
            Decision::Denied => denied.inc(),
        };
    }
}

impl VolumeAudit {
    /// Records about this volume of this pod.
    #[must_use]
    pub fn new(log: AuditLog, volume: &VolumeId, identity: &WorkloadIdentity) -> Self {
        let opens = log.metrics.as_deref().map(OpenCounters::of);
        let subject = Arc::new(Subject::new(Some(volume), identity));
        Self { log, subject, opens }
    }

    /// From here on records name the store.
    pub fn set_store(&mut self, store: &StoreName) {
        self.subject = Arc::new(self.subject.at(store));
    }

    /// Records a decision about the whole volume: allowed, or denied for a reason.
    pub fn decided(&self, action: AuditAction, reason: Option<String>) {
        let decision = if reason.is_some() { Decision::Denied } else { Decision::Allowed };
        self.record(action, decision, reason, None);
    }

    fn record(
        &self,
        action: AuditAction,
        decision: Decision,
        reason: Option<String>,
        opened: Option<Opened>,
    ) {
        let (time, subject) = (self.log.clock.now(), Arc::clone(&self.subject));
        self.log.record(Entry { time, action, decision, reason, subject, opened });
    }
}

impl AuditSink for VolumeAudit {
    fn is_interested(&self) -> bool {
        self.log.is_on()
    }

    fn opened(
        &self,
        object: &Arc<str>,
        generation: Generation,
        opener: Opener,
        decision: Decision,
    ) {
        if let Some(opens) = &self.opens {
            opens.count(decision);
        }
        let opened = Opened { object: Arc::clone(object), generation, opener };
        self.record(AuditAction::Open, decision, None, Some(opened));
    }
}

#[cfg(test)]
mod tests;
