//! Memory that was freed goes back to the machine.
//!
//! glibc keeps what a burst of publishes or a thousand volumes used, in pieces between what lives on: a node agent
//! without a volume had the memory of three hundred. Whoever frees much says so; once it has been quiet for a moment
//! the free pages are given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::drain::Drain;
use crate::hardening;

/// What is freed soon afterwards is given back with it.
pub const QUIET: Duration = Duration::from_secs(1);

/// A handle; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tidy(Arc<Notify>);

impl Tidy {
    /// Much was freed. Does nothing unless [`Self::run`] runs.
    pub fn soon(&self) {
        self.0.notify_one();
    }

    /// Gives memory back until the drain begins.
    pub async fn run(self, drain: Drain) {
        loop {
            let quiet = async {
                self.0.notified().await;
                tokio::time::sleep(QUIET).await;
            };
            tokio::select! {
                () = drain.begun() => return,
                () = quiet => {}
            }
            // It walks the whole heap; if it panicked, memory stays where it is.
            let _ = tokio::task::spawn_blocking(hardening::give_memory_back).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_drain_whether_something_was_freed_or_not() {
        for frees in [0, 3] {
            let (tidy, drain) = (Tidy::default(), Drain::new());
            drain.spawn(tidy.clone().run(drain.clone()));
            (0..frees).for_each(|_| tidy.soon());
            tokio::time::sleep(QUIET * 2).await;
            drain.finish(QUIET).await.unwrap();
        }
    }
}
