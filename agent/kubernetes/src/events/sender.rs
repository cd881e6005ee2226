//! The task that sends what the filter lets pass, and the counts of what was repeated.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::filter::{Due, Filter, Key, Verdict};
use super::wire::Writer;
use super::{Counters, PodEvent, Settings, count};
use crate::api_error::ApiError;
use crate::backoff::Backoff;

/// The longest pause between two tries of one event: others wait behind it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Windows are looked at this many times in their length.
const LOOKS_A_WINDOW: u32 = 8;

pub(super) struct Sender {
    writer: Writer,
    filter: Filter,
    counters: Arc<Counters>,
    settings: Settings,
}

impl Sender {
    pub(super) fn new(writer: Writer, settings: Settings, counters: Arc<Counters>) -> Self {
        let filter = Filter::new(settings.clone(), Instant::now());
        Self { writer, filter, counters, settings }
    }

    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<PodEvent>) {
        let look = (self.settings.window / LOOKS_A_WINDOW).max(Duration::from_millis(1));
        let mut looks = interval_at(Instant::now() + look, look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = waiting.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => return,
                },
                _ = looks.tick() => {
                    for key in self.filter.over(Instant::now()) {
                        self.send(&key).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, event: PodEvent) {
        match self.filter.admit(event, Instant::now()) {
            Verdict::Send(key) => self.send(&key).await,
            Verdict::Repeated => count(&self.counters.repeated),
            Verdict::Limited => count(&self.counters.dropped_rate_limited),
        }
    }

    async fn send(&mut self, key: &Key) {
        let Some(due) = self.filter.due(key) else { return };
        match self.write(&due).await {
            Ok(object) => {
                count(&self.counters.sent);
                self.filter.sent(key, object);
            }
            Err(error) => {
                count(&self.counters.failed);
                self.filter.forget(key);
                let pod = &due.event.pod;
                tracing::warn!(namespace = %pod.namespace, pod = %pod.name, %error,
                    reason = due.event.reason, "an event was lost");
            }
        }
    }

    /// Tries again as long as the API server is merely away, a few times.
    async fn write(&self, due: &Due) -> Result<String, ApiError> {
        let mut backoff = Backoff::new(self.settings.shortest_pause, LONGEST_PAUSE);
        let mut tries = 0;
        let new_name = || self.writer.new_name(due.event.pod.name.as_str());
        let name = due.object.clone().unwrap_or_else(new_name);
        loop {
            match self.writer.write(due, &name).await {
                Err(error) if error.is_outage() && tries < self.settings.retries => {
                    tries += 1;
                    let asked = error.retry_after().map(|asked| asked.min(LONGEST_PAUSE));
                    tokio::time::sleep(backoff.next(asked)).await;
                }
                result => return result.map(|()| name),
            }
        }
    }
}
