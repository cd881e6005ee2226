//! Threads that read a volume's files over and over, and what they saw.

mod kept;
mod pairs;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any read may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What readers saw.
#[derive(Debug, Default)]
pub struct Seen {
    reads: AtomicU64,
    longest: Mutex<Duration>,
    failures: Mutex<Vec<String>>,
    values: Mutex<BTreeSet<String>>,
}

impl Seen {
    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The longest read since the last call.
    pub fn take_longest(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What went wrong, the first few.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every value that was read.
    pub fn values(&self) -> BTreeSet<String> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, path: &Path, read: std::io::Result<String>, took: Duration) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = longest.max(took);
        drop(longest);
        match read {
            Ok(value) => {
                let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
                if !values.contains(&value) {
                    values.insert(value);
                }
            }
            Err(error) => {
                const MOST: usize = 20;
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                if failures.len() < MOST {
                    failures.push(format!("{}: {error} after {took:?}", path.display()));
                }
            }
        }
    }
}

/// Threads that read until they are told to stop.
pub struct Readers {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
    /// Disconnected once all of them have ended.
    ends: Receiver<()>,
}

impl Readers {
    /// `threads` readers; each goes over all files, opening each anew, and reads through one fd that it opened
    /// at the start as well.
    pub fn start(threads: usize, files: Vec<PathBuf>) -> std::io::Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Seen>::default());
        let files = Arc::new(files);
        let mut started = Vec::new();
        let (end, ends): (Sender<()>, _) = channel();
        for number in 0..threads {
            let (stop, seen, files) = (Arc::clone(&stop), Arc::clone(&seen), Arc::clone(&files));
            let kept = files[number % files.len()].clone();
            let open = File::open(&kept)?;
            let end = end.clone();
            started.push(std::thread::spawn(move || {
                let _end = end;
                let mut at = number;
                while !stop.load(Ordering::Relaxed) {
                    let file = &files[at % files.len()];
                    at += 1;
                    let begun = Instant::now();
                    let read = std::fs::read_to_string(file);
                    seen.note(file, read, begun.elapsed());
                    let begun = Instant::now();
                    let mut bytes = vec![0; 16 << 10];
                    let read = open.read_at(&mut bytes, 0).and_then(|size| {
                        String::from_utf8(bytes[..size].to_vec()).map_err(std::io::Error::other)
                    });
                    seen.note(&kept, read, begun.elapsed());
                }
            }));
        }
        Ok(Self { stop, seen, threads: started, ends })
    }

    /// What they have seen so far.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Waits until they have read on: `more` reads from now.
    ///
    /// # Errors
    /// They don't.
    pub async fn read_on(&self, more: u64) -> anyhow::Result<()> {
        let wanted = self.seen.reads() + more;
        crate::wait::until("reads that go on", || self.seen.reads() >= wanted).await
    }

    /// Stops them. One that hangs in the kernel is left there, and is a failure.
    ///
    /// # Panics
    /// A reader did.
    pub fn stop(mut self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let waited = self.ends.recv_timeout(PATIENCE);
        if !matches!(waited, Err(RecvTimeoutError::Disconnected)) {
            let hangs = format!("a reader hangs for {PATIENCE:?}");
            self.seen.failures.lock().unwrap_or_else(PoisonError::into_inner).push(hangs);
            return Arc::clone(&self.seen);
        }
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a reader doesn't panic");
        }
        Arc::clone(&self.seen)
    }
}

/// A scenario that failed: its readers must not take the processors from those that follow.
impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
