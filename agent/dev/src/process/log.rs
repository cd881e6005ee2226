//! What a child has written, line by line; waiting for a line needs no polling.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Beyond, the oldest lines are forgotten.
const LINES_KEPT: usize = 100_000;
/// Lines that an error shows.
const LINES_SHOWN: usize = 20;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// Without its end.
    pub text: Arc<str>,
}

/// The lines of a child.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<Line>>,
    tick: watch::Sender<()>,
}

impl Log {
    /// Reads the lines so far.
    pub fn read<T>(&self, look: impl FnOnce(&[Line]) -> T) -> T {
        // A copy: `look` may ask the log again.
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        look(&lines)
    }

    /// The lines of one stream so far.
    #[must_use]
    pub fn lines(&self, stream: Stream) -> Vec<String> {
        self.read(|lines| {
            let of_stream = lines.iter().filter(|line| line.stream == stream);
            of_stream.map(|line| line.text.to_string()).collect()
        })
    }

    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.read(|lines| lines.iter().map(|line| format!("{}\n", line.text)).collect())
    }

    /// The last lines, for an error.
    #[must_use]
    pub fn tail(&self) -> String {
        self.read(|lines| {
            let from = lines.len().saturating_sub(LINES_SHOWN);
            lines[from..].iter().map(|line| format!("  {}\n", line.text)).collect()
        })
    }

    /// Waits until `look` finds something in the lines. The caller bounds the time.
    pub async fn until<T>(&self, look: impl Fn(&[Line]) -> Option<T>) -> T {
        let mut ticks = self.tick.subscribe();
        loop {
            ticks.mark_unchanged();
            if let Some(found) = self.read(&look) {
                return found;
            }
            if ticks.changed().await.is_err() {
                unreachable!("the log owns the sender");
            }
        }
    }

    fn push(&self, stream: Stream, text: Arc<str>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT {
            lines.drain(..LINES_KEPT / 2);
        }
        lines.push(Line { stream, text });
        drop(lines);
        self.tick.send_replace(());
    }

    /// Reads a stream to its end, on a thread of its own, which drops `ended` then.
    pub(super) fn follow(
        self: &Arc<Self>,
        stream: Stream,
        source: impl Read + Send + 'static,
        ended: Sender<()>,
    ) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            let _ended = ended;
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                log.push(stream, String::from_utf8_lossy(&line).into());
            }
        });
    }
}
