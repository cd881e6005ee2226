//! The next worker: what it begins with, and when it is wanted.
//!
//! Invariant: what the supervisor keeps here is the last assignment that was served by, with the pod and the volume
//! that it is for; no token and no value. A worker whose store, limits or refresh are not what `sotto-node` says any
//! more ends, and the next one begins with what it says now; the volume is served on meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use prost::Message as _;
use rustix::fs::MemfdFlags;
use sotto_handoff::message::{Assignment, Prepare};
use sotto_supervisor::{Keeper, Kept};
use tokio::sync::watch;

/// Where it is kept; no volume can be called so.
const KEY: &str = ".assignment";
/// Largest that is read back.
const MOST_BYTES: u64 = 1 << 20;

/// Exit status of a worker that another one is to follow at once (`EX_TEMPFAIL` of sysexits).
pub const EXIT_ANEW: u8 = 75;

/// What a worker needs to know to begin: a Prepare of which only volume, pod, class and assignment are set.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning(Prepare);

impl Beginning {
    /// Of a volume, by what the driver said of it.
    #[must_use]
    pub fn of(message: &Prepare, assignment: Assignment) -> Self {
        Self(Prepare {
            volume_id: message.volume_id.clone(),
            pod: message.pod.clone(),
            secret_provider_class: message.secret_provider_class.clone(),
            assignment: Some(assignment),
            ..Prepare::default()
        })
    }

    /// The same volume with another assignment.
    #[must_use]
    pub fn with(&self, assignment: Assignment) -> Self {
        Self::of(&self.0, assignment)
    }

    /// As the driver would say it.
    #[must_use]
    pub fn message(&self) -> &Prepare {
        &self.0
    }

    /// What a former worker left, if it left something; nothing but volumes is in `kept` from then on.
    pub fn take(kept: &mut BTreeMap<String, Kept>) -> Option<Self> {
        let file = File::from(kept.remove(KEY)?.values?);
        match read(file) {
            Ok(beginning) => Some(beginning),
            Err(error) => {
                tracing::warn!(%error, "what the former worker was assigned can't be read");
                None
            }
        }
    }

    fn keep(&self, keeper: &Keeper) -> io::Result<()> {
        if !keeper.is_kept() {
            return Ok(());
        }
        let mut file = File::from(rustix::fs::memfd_create("assignment", MemfdFlags::CLOEXEC)?);
        file.write_all(&self.0.encode_to_vec())?;
        keeper.keep_values(KEY, file)
    }
}

fn read(mut file: File) -> io::Result<Beginning> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Prepare::decode(bytes.as_slice()).map(Beginning).map_err(io::Error::other)
}

/// A handle to the next worker; cheap to clone.
#[derive(Debug, Clone)]
pub struct Anew {
    keeper: Keeper,
    wanted: watch::Sender<bool>,
    withdrawn: watch::Sender<bool>,
}

impl Anew {
    /// Nothing is kept, and no other worker is wanted.
    #[must_use]
    pub fn new(keeper: Keeper) -> Self {
        Self { keeper, wanted: watch::Sender::new(false), withdrawn: watch::Sender::new(false) }
    }

    /// The next worker, whenever it comes, begins with this.
    pub fn keep(&self, beginning: &Beginning) {
        if let Err(error) = beginning.keep(&self.keeper) {
            tracing::warn!(%error, "the supervisor keeps no assignment: after a crash the driver brings it");
        }
    }

    /// The next worker is to come now.
    pub fn begin(&self, beginning: &Beginning) {
        self.keep(beginning);
        if !self.wanted.send_replace(true) {
            tracing::info!("the store's settings have changed: another worker goes on with them");
        }
    }

    /// The pod may not have its secrets any more: everything is given up.
    pub fn withdraw(&self, reason: &str) {
        if !self.withdrawn.send_replace(true) {
            tracing::error!(
                reason,
                "sotto-node withdraws the pod's secrets: the volume is given up"
            );
        }
    }

    /// Until the pod may not have its secrets any more.
    pub async fn withdrawn(&self) {
        // Its sender is this value's own.
        let _ = self.withdrawn.subscribe().wait_for(|withdrawn| *withdrawn).await;
    }

    /// Until another worker is wanted.
    pub async fn wanted(&self) {
        // Its sender is this value's own.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// Whether another worker is wanted.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_core::identity::VolumeId;

    #[test]
    fn what_is_kept_is_read_back_and_is_no_volume() {
        assert!(VolumeId::parse(KEY).is_err());
        let message = Prepare {
            volume_id: "csi-1".to_owned(),
            service_account_tokens: b"canary".to_vec(),
            ..Prepare::default()
        };
        let beginning = Beginning::of(&message, Assignment::default());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&beginning.0.encode_to_vec()).unwrap();
        let kept = Kept { values: Some(file.into()), connection: None };
        let mut kept =
            BTreeMap::from([(KEY.to_owned(), kept), ("csi-1".to_owned(), Kept::default())]);
        let taken = Beginning::take(&mut kept).unwrap();
        assert_eq!(taken, beginning);
        assert!(taken.message().service_account_tokens.is_empty());
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["csi-1"]);
        assert_eq!(Beginning::take(&mut kept), None);
    }

    #[tokio::test]
    async fn another_worker_comes_once_it_is_wanted() {
        let anew = Anew::new(Keeper::default());
        assert!(!anew.is_wanted());
        anew.begin(&Beginning::of(&Prepare::default(), Assignment::default()));
        anew.wanted().await;
        assert!(anew.is_wanted());
    }
}
