//! Which volumes are being handed over, and when those that failed are tried again.
//!
//! Invariant: a volume is tried by one task at a time, and no volume waits for another one's. A failure is tried again
//! after a pause that doubles, at once if another process is there to take the volume, or if the volume itself was
//! nudged; what other pods' sidecars do brings it no sooner. Called by the take-over's loop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::VolumeId;
use tokio::sync::Semaphore;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use super::{awaits_sidecar, needs_care, restore};
use crate::broker::Agent;
use crate::driver::Driver;
use crate::volume::{Mode, Volume};

/// Volumes handed over at one time: to sotto-node, and to sidecars, of which each may take its time.
const PARALLEL: usize = 16;
const PARALLEL_SIDECARS: usize = 64;
/// Between two tries of what failed: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Tries under way and failed.
pub(super) struct Tries {
    tasks: JoinSet<bool>,
    running: HashMap<task::Id, VolumeId>,
    failed: HashMap<VolumeId, Failed>,
    node_places: Arc<Semaphore>,
    sidecar_places: Arc<Semaphore>,
}

struct Failed {
    until: Instant,
    pause: Duration,
    /// Who could have taken it then.
    agent: Option<Agent>,
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            running: HashMap::new(),
            failed: HashMap::new(),
            node_places: Arc::new(Semaphore::new(PARALLEL)),
            sidecar_places: Arc::new(Semaphore::new(PARALLEL_SIDECARS)),
        }
    }
}

impl Tries {
    /// Begins what is due. Returns when the next one is.
    pub(super) fn begin_due(&mut self, driver: &Arc<Driver>) -> Option<Instant> {
        let volumes = driver.volumes.all();
        let known: HashSet<&VolumeId> = volumes.iter().map(|volume| &volume.id).collect();
        self.failed.retain(|volume, _| known.contains(volume));
        let running: HashSet<VolumeId> = self.running.values().cloned().collect();
        let mut next = None;
        for volume in &volumes {
            if !needs_care(volume) || awaits_sidecar(driver, volume) || running.contains(&volume.id)
            {
                continue;
            }
            match self.waits_until(driver, volume) {
                Some(until) => next = [next, Some(until)].into_iter().flatten().min(),
                None => self.begin(driver, volume),
            }
        }
        next
    }

    fn waits_until(&self, driver: &Driver, volume: &Volume) -> Option<Instant> {
        let is_nudged = volume.take_nudge();
        let failed = self.failed.get(&volume.id)?;
        let agent = driver.agent_for(volume);
        let is_another =
            agent.is_some_and(|agent| !failed.agent.as_ref().is_some_and(|it| it.is(&agent)));
        (!is_nudged && !is_another && Instant::now() < failed.until).then_some(failed.until)
    }

    fn begin(&mut self, driver: &Arc<Driver>, volume: &Volume) {
        let places = match volume.spec.mode {
            Mode::Node => Arc::clone(&self.node_places),
            Mode::Sidecar => Arc::clone(&self.sidecar_places),
        };
        let (driver, id) = (Arc::clone(driver), volume.id.clone());
        let volume = id.clone();
        let task = self.tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            restore(&driver, &id).await
        });
        self.running.insert(task.id(), volume);
    }

    /// The next that ended; `None` while nothing is tried.
    pub(super) async fn ended(&mut self) -> Option<(VolumeId, bool)> {
        match self.tasks.join_next_with_id().await? {
            Ok((task, is_cared_for)) => {
                self.running.remove(&task).map(|volume| (volume, is_cared_for))
            }
            Err(error) => {
                tracing::error!(%error, "a take-over panicked");
                self.running.remove(&error.id()).map(|volume| (volume, false))
            }
        }
    }

    /// Notes how a try ended; `agent` could take the volume.
    pub(super) fn note(&mut self, volume: VolumeId, is_cared_for: bool, agent: Option<Agent>) {
        if is_cared_for {
            self.failed.remove(&volume);
            return;
        }
        let before = self.failed.get(&volume).map(|failed| failed.pause * 2);
        let pause = before.unwrap_or(FIRST_PAUSE).min(LAST_PAUSE);
        self.failed.insert(volume, Failed { until: Instant::now() + pause, pause, agent });
    }

    /// A sotto-node came or went: whatever failed may do now.
    pub(super) fn forget_failures(&mut self) {
        self.failed.clear();
    }

    /// How many volumes are unserved, as far as is known.
    pub(super) fn count(&self) -> usize {
        self.failed.len() + self.running.len()
    }
}
