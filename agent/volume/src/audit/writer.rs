//! The thread that writes the audit log.
//!
//! A first record wakes it, and from then on it looks by itself ([`Pace`]): writing at once, it took the processor from
//! the publish that its record is about.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::SystemTime;

use serde_json::json;
use sotto_core::clock::Clock;

use super::pace::{PAUSE, Pace};
use super::{Entry, Message};

/// Writes lines until every handle is gone.
pub(super) struct Writer<W> {
    output: W,
    lost: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    pace: Arc<Pace>,
    line: Vec<u8>,
    failing: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(
        output: W,
        lost: Arc<AtomicU64>,
        clock: Arc<dyn Clock>,
        pace: Arc<Pace>,
    ) -> Self {
        Self { output, lost, clock, pace, line: Vec::new(), failing: false }
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            self.pace.look_away(PAUSE);
            let mut flushed = Vec::new();
            let mut next = Ok(first);
            // One flush for all that is there.
            while let Ok(message) = next {
                match message {
                    Message::Record(entry) => {
                        self.pace.taken();
                        self.write_record(&entry);
                    }
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
        // To append to memory fails for no record.
        if entry.record().append_to(&mut self.line).is_err() || !self.write_line() {
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

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
