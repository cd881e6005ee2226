//! The thread that writes the audit log.
//!
//! A first record wakes the writer, which then looks away for [`PAUSE`]: what comes meanwhile is one write, and to queue
//! it wakes nobody. Woken for each open, the writer cost a reader more than the open itself; writing at once, it took
//! the processor from the publish that its record is about.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, SystemTime};

use serde_json::json;
use sotto_core::clock::Clock;

use super::{Entry, Message};

/// Between two looks at the queue. A process that is killed loses the records of so long at most.
const PAUSE: Duration = Duration::from_millis(1);

/// Writes lines until every handle is gone.
pub(super) struct Writer<W> {
    output: W,
    lost: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    line: Vec<u8>,
    failing: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(output: W, lost: Arc<AtomicU64>, clock: Arc<dyn Clock>) -> Self {
        Self { output, lost, clock, line: Vec::new(), failing: false }
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            look_away();
            let mut flushed = Vec::new();
            let mut next = Ok(first);
            // One flush for all that is there.
            while let Ok(message) = next {
                match message {
                    Message::Record(entry) => self.write_record(&entry),
                    Message::Flush(written) => flushed.push(written),
                }
                next = messages.try_recv();
            }
            self.write_lost();
            self.note(|output| output.flush());
            for written in flushed {
                // Whoever asked may have given up.
                let _ = written.send(());
            }
            if matches!(next, Err(TryRecvError::Disconnected)) {
                return;
            }
        }
    }

    fn write_record(&mut self, entry: &Entry) {
        self.write_lost();
        self.line.clear();
        // Serializing into memory fails for no record.
        if serde_json::to_writer(&mut self.line, &entry.record()).is_ok() && !self.write_line() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells how many records are missing just here.
    fn write_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        self.line.clear();
        let told = json!({ "time": rfc3339(self.clock.now()), "action": "lost", "records": lost });
        if serde_json::to_writer(&mut self.line, &told).is_err() || !self.write_line() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    fn write_line(&mut self) -> bool {
        let mut line = std::mem::take(&mut self.line);
        line.push(b'\n');
        let written = self.note(|output| output.write_all(&line));
        self.line = line;
        written
    }

    /// Logs the first of a row of failures: a full disk must not fill the log as well.
    fn note(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> bool {
        match write(&mut self.output) {
            Ok(()) => {
                self.failing = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the audit log can't be written: records are lost");
                }
                false
            }
        }
    }
}

/// It must not be woken by what comes, which waiting on the queue would be.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, which blocks nobody")]
fn look_away() {
    std::thread::sleep(PAUSE);
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
