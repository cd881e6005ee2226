//! When the writer looks at its queue.
//!
//! After a first record it looks away for [`PAUSE`], and to queue another wakes nobody: what comes meanwhile is one
//! write. Woken for each open, the writer cost a reader more than the open itself; looking every millisecond, a third
//! of that: a timer, two switches of thread, a write, the wake-up of who reads it. Once half of the queue is full,
//! whoever queues that record wakes it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::QUEUE;

/// Between two looks at the queue. A process that is killed loses the records of so long at most.
pub(super) const PAUSE: Duration = Duration::from_millis(4);
/// So many records don't wait for the pause to end.
const HALF: usize = QUEUE / 2;

/// What those who record and the writer know of each other.
#[derive(Default)]
pub(super) struct Pace {
    /// Counted before it is queued: never less than the records in the queue.
    queued: AtomicUsize,
    writer: OnceLock<Thread>,
}

impl Pace {
    /// A record is about to be queued.
    pub(super) fn queueing(&self) {
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        if before + 1 == HALF
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// A record was taken from the queue, or had no room there.
    pub(super) fn taken(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// On the writer's thread: returns once `pause` is over, or half of the queue is full.
    pub(super) fn look_away(&self, pause: Duration) {
        self.writer.get_or_init(std::thread::current);
        let began = Instant::now();
        // Parking ends early now and then, as the queue's own waiting leaves a wake-up behind.
        while self.queued.load(Ordering::Relaxed) < HALF
            && let Some(left) = pause.checked_sub(began.elapsed()).filter(|left| !left.is_zero())
        {
            std::thread::park_timeout(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn half_a_queue_ends_the_pause_and_less_does_not() {
        let (pace, (returned, ended)) = (Arc::new(Pace::default()), channel());
        let writer = Arc::clone(&pace);
        std::thread::spawn(move || {
            writer.look_away(HOUR);
            returned.send(()).unwrap();
        });
        (1..HALF).for_each(|_| pace.queueing());
        pace.taken();
        pace.queueing();
        assert_eq!(ended.recv_timeout(PAUSE * 5), Err(RecvTimeoutError::Timeout));
        pace.queueing();
        assert_eq!(ended.recv_timeout(SOON), Ok(()));
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let began = Instant::now();
        Pace::default().look_away(PAUSE);
        assert!(began.elapsed() >= PAUSE);
    }
}
