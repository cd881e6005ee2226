//! Those who use a mount: threads and processes that may wait in the kernel, each with a bound.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::machine::{PATIENCE, eventually};

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const ECONNABORTED: i32 = 103;

/// One question to the mount, on a thread that isn't the runtime's: it may never end.
pub(crate) struct Asking(oneshot::Receiver<(io::Result<String>, Instant)>);

impl Asking {
    pub(crate) fn new(ask: impl FnOnce() -> io::Result<String> + Send + 'static) -> Self {
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || sender.send((ask(), Instant::now())));
        Self(receiver)
    }

    pub(crate) fn read(path: &Path) -> Self {
        let path = path.to_owned();
        Self::new(move || std::fs::read_to_string(path))
    }

    /// The file stays open: a close asks as well.
    pub(crate) fn reread(file: &Arc<File>) -> Self {
        let file = Arc::clone(file);
        Self::new(move || reread(&file))
    }

    pub(crate) fn stat(path: &Path) -> Self {
        let path = path.to_owned();
        Self::new(move || Ok(std::fs::metadata(path)?.len().to_string()))
    }

    /// The errno, 0 for none, and when it came.
    pub(crate) async fn errno(self) -> (i32, Instant) {
        let answer = tokio::time::timeout(PATIENCE, self.0).await.expect("a reader hangs");
        let (answer, at) = answer.unwrap();
        (errno(&answer), at)
    }

    /// Whether it still waits after `time`.
    pub(crate) async fn still_waits(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, &mut self.0).await.is_err()
    }
}

pub(crate) fn errno(answer: &io::Result<String>) -> i32 {
    answer.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap())
}

/// One READ and nothing else: `read_to_string` asks for the size first, and ignores the error.
fn reread(file: &File) -> io::Result<String> {
    let mut bytes = [0; 64];
    let size = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8(bytes[..size].to_vec()).unwrap())
}

/// A process that reads a file.
pub(crate) struct Cat(Child);

impl Cat {
    pub(crate) fn of(path: &Path) -> Self {
        let cat = Command::new("cat").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(cat.unwrap())
    }

    /// Kills it. Whether it is gone soon, or hangs in the kernel instead.
    pub(crate) async fn dies(&mut self) -> bool {
        self.0.kill().unwrap();
        let gone = async {
            while !self.is_gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), gone).await.is_ok()
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// As `/proc` shows it: `D` is a wait that no signal ends.
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }
}

/// Threads that read in a loop and count what they get.
pub(crate) struct Racing {
    shared: Arc<Shared>,
    threads: usize,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    ended: AtomicUsize,
    errnos: Mutex<BTreeMap<i32, usize>>,
    longest: Mutex<Duration>,
}

impl Racing {
    /// `pairs` threads that open `path` each time, and as many that keep it open.
    pub(crate) fn on(path: PathBuf, pairs: usize) -> Self {
        let shared = Arc::new(Shared::default());
        for _ in 0..pairs {
            let at = path.clone();
            shared.race(move || std::fs::read_to_string(&at));
            let file = File::open(&path).unwrap();
            shared.race(move || reread(&file));
        }
        Self { shared, threads: 2 * pairs }
    }

    /// How often each errno came; 0 is a good read.
    pub(crate) fn errnos(&self) -> BTreeMap<i32, usize> {
        self.shared.errnos.lock().unwrap().clone()
    }

    /// Waits until `more` reads have ended well (or badly) from now on.
    pub(crate) async fn more(&self, well: bool, more: usize) {
        let count = || self.errnos().iter().filter(|it| (*it.0 == 0) == well).map(|it| it.1).sum();
        let before: usize = count();
        eventually("the readers go on", || count() >= before + more).await;
    }

    /// Stops them; none may hang. The longest read.
    pub(crate) async fn stop(self) -> Duration {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = || self.shared.ended.load(Ordering::SeqCst);
        eventually("every reader ends", || ended() == self.threads).await;
        *self.shared.longest.lock().unwrap()
    }
}

impl Shared {
    fn race(self: &Arc<Self>, mut read: impl FnMut() -> io::Result<String> + Send + 'static) {
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            while !shared.stop.load(Ordering::SeqCst) {
                let before = Instant::now();
                let errno = errno(&read());
                let mut longest = shared.longest.lock().unwrap();
                *longest = longest.max(before.elapsed());
                *shared.errnos.lock().unwrap().entry(errno).or_default() += 1;
            }
            shared.ended.fetch_add(1, Ordering::SeqCst);
        });
    }
}
