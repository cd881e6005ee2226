//! When a process ends, counted by the library's own futures from outside.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// When, relative to a call. The n-th await point of a call is where its future said `Pending` for the n-th time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Once the call has ended.
    Ended,
    /// As soon as the n-th await point is reached: what it waits for has just begun.
    Asleep(u64),
    /// When it was woken there: what it waited for is done, and nobody has looked at it yet.
    Woken(u64),
    /// SIGTERM at the n-th await point.
    Leaving(u64),
    /// Before a system call, by its number in the list of the call's.
    Call(u64),
    /// After so many microseconds.
    After(u64),
    /// When the whole process has nothing to do, for the n-th time.
    Idle(u64),
}

impl Moment {
    /// For a command line.
    pub(crate) fn words(self) -> [String; 2] {
        let (word, number) = match self {
            Self::Ended => ("ended", 0),
            Self::Asleep(n) => ("asleep", n),
            Self::Woken(n) => ("woken", n),
            Self::Leaving(n) => ("leaving", n),
            Self::Call(n) => ("call", n),
            Self::After(n) => ("after", n),
            Self::Idle(n) => ("idle", n),
        };
        [word.to_owned(), number.to_string()]
    }

    pub(crate) fn parse(word: &str, number: &str) -> Self {
        let n = number.parse().unwrap();
        match word {
            "ended" => Self::Ended,
            "asleep" => Self::Asleep(n),
            "woken" => Self::Woken(n),
            "leaving" => Self::Leaving(n),
            "call" => Self::Call(n),
            "after" => Self::After(n),
            "idle" => Self::Idle(n),
            other => panic!("no moment {other}"),
        }
    }
}

/// Ends this process as the kernel would for want of memory.
pub(crate) fn die() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}

/// Dies so many microseconds from now.
pub(crate) fn die_after(microseconds: u64) {
    std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_micros(microseconds));
        die();
    });
}

/// Polls a future and counts its await points; gives their number with its output. For a runtime with one thread
/// that may block.
pub(crate) struct Counted<F> {
    future: Pin<Box<F>>,
    moment: Moment,
    points: u64,
}

impl<F> Counted<F> {
    pub(crate) fn new(future: F, moment: Moment) -> Self {
        Self { future: Box::pin(future), moment, points: 0 }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = (F::Output, u64);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.points > 0 && self.moment == Moment::Woken(self.points) {
            die();
        }
        // What the future gives to a thread that may block begins after this poll: on a lucky machine it would
        // be done before the future looks, and the await point would be none.
        let (hold, held) = std::sync::mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || held.recv()));
        let polled = self.future.as_mut().poll(context);
        drop(hold);
        if let Poll::Ready(output) = polled {
            return Poll::Ready((output, self.points));
        }
        self.points += 1;
        if self.moment == Moment::Asleep(self.points) {
            die();
        }
        if self.moment == Moment::Leaving(self.points) {
            kill_process(getpid(), Signal::TERM).unwrap();
        }
        Poll::Pending
    }
}

static COUNTS: AtomicBool = AtomicBool::new(false);
static PAUSES: AtomicU64 = AtomicU64::new(0);

/// From now on the process's pauses count.
pub(crate) fn count_pauses() {
    COUNTS.store(true, Ordering::SeqCst);
}

/// The process's only thread that polls futures has nothing to do: each of its tasks is at an await point.
pub(crate) fn pauses(moment: Moment) {
    if COUNTS.load(Ordering::SeqCst) {
        let pauses = PAUSES.fetch_add(1, Ordering::SeqCst) + 1;
        if moment == Moment::Idle(pauses) {
            die();
        }
    }
}
