//! What an agent may ask of the driver: the file-system operations of a rotation, on volumes that it serves.
//!
//! Invariant: an agent is less trusted than the driver. It names a volume and a generation; every name that
//! it gives stays one name inside that volume, and the operations are made by a helper process.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{PodUid, VolumeId};
use sotto_core::names::ObjectPath;
use sotto_handoff::link::{Answer, Handler};
use sotto_handoff::message::{
    Acknowledged, Code, MetricsText, ProviderConnected, Resolved, Retire, Retired, Rotate, Rotated,
    Touch, frame::Body,
};
use sotto_handoff::refusal::Refusal;
use sotto_runtime::metrics;

use crate::driver::{Driver, blocking};
use crate::mountinfo::{self, Mount};
use crate::providers;
use crate::rotation::{self, Operation, RotationError};
use crate::shown::Shown;
use crate::sidecar::assignment;
use crate::volume::{Mode, Volume, VolumeSpec};

/// Between two looks for connections that are being fetched back.
const HELD_LOOK: Duration = Duration::from_millis(50);
/// How long an agent that leaves is kept for them.
const HELD_PATIENCE: Duration = Duration::from_secs(15);
/// How long an agent is waited for that is just being given a volume.
const GIVING_PATIENCE: Duration = Duration::from_secs(1);
/// How long a request waits for a place for its helper process.
const PLACE_PATIENCE: Duration = Duration::from_secs(10);

/// Whose volumes an agent may ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that sotto-node serves.
    Node,
    /// Those of one pod, whose sidecar it is.
    Pod(PodUid),
}

impl Scope {
    fn covers(&self, spec: &VolumeSpec) -> bool {
        match (self, spec.mode) {
            (Self::Node, Mode::Node) => true,
            (Self::Pod(uid), Mode::Sidecar) => *uid == spec.identity.pod_uid,
            (Self::Node, Mode::Sidecar) | (Self::Pod(_), Mode::Node) => false,
        }
    }
}

/// One agent's requests.
pub(crate) struct Requests {
    driver: Arc<Driver>,
    instance: Arc<str>,
    scope: Scope,
}

impl Requests {
    pub(crate) fn new(driver: Arc<Driver>, instance: Arc<str>, scope: Scope) -> Self {
        Self { driver, instance, scope }
    }

    /// The volume, if this agent serves it.
    async fn own(&self, id: &str) -> Result<Arc<Volume>, Refusal> {
        let unknown = || Refusal::new(Code::NotFound, "the driver has no such volume mounted");
        let id = VolumeId::parse(id).map_err(|_| unknown())?;
        let volume = self.driver.volumes.get(&id).ok_or_else(unknown)?;
        if !self.scope.covers(&volume.spec) {
            return Err(unknown());
        }
        // After a restart of the driver nobody is known to serve: whoever may serve it may ask.
        let is_own = || volume.last_instance().is_none_or(|other| other == self.instance);
        if !is_own() {
            // It may have been given the volume in this moment, and that isn't noted yet.
            let _ = tokio::time::timeout(GIVING_PATIENCE, volume.silence.lock()).await;
        }
        if is_own() {
            Ok(volume)
        } else {
            Err(Refusal::new(Code::PermissionDenied, "another agent serves this volume"))
        }
    }

    /// A helper works on when the agent's link ends with its worker: one that is killed in its rename makes the
    /// kernel look both names up anew, and watchers never hear of the rotation. Its requests are sent again to
    /// the next worker, whose own request for the same waits here.
    ///
    /// `turned` is called when it is done, whoever is left to hear of it.
    async fn perform(
        &self,
        volume: &Volume,
        operation: Operation,
        turned: impl FnOnce() + Send + 'static,
    ) -> Result<(), Refusal> {
        let internal = |error: &RotationError| Refusal::new(Code::Internal, &error.to_string());
        let turn = Arc::clone(&volume.operations).lock_owned();
        let places = Arc::clone(self.driver.helpers_of(volume.spec.mode));
        let place = async { (turn.await, places.acquire_owned().await) };
        let Ok((turn, Ok(place))) = tokio::time::timeout(PLACE_PATIENCE, place).await else {
            let busy = "every helper process of the driver is busy, or hangs in a volume that nobody answers";
            return Err(Refusal::new(Code::Unavailable, busy));
        };
        let (kubelet, target) = (Arc::clone(&self.driver.kubelet), volume.target.relative());
        let (told, done) = tokio::sync::oneshot::channel();
        self.driver.drain.spawn(async move {
            let place = rotation::Place { place, turn };
            let done = rotation::run(kubelet.path(), &target, &operation, place).await;
            if done.is_ok() {
                turned();
            }
            // Whoever asked may be gone.
            let _ = told.send(done);
        });
        let done = done.await.unwrap_or_else(|_| {
            Err(RotationError::Spawn(std::io::Error::other("the task that made it ended")))
        });
        let result = match &done {
            Ok(()) => "ok",
            Err(RotationError::Deadline) => "deadline",
            Err(RotationError::Spawn(_) | RotationError::Failed(_)) => "failed",
        };
        self.driver.metrics.helpers.get_or_create(&metrics::Result { result }).inc();
        done.map_err(|error| match &error {
            RotationError::Deadline => Refusal::new(Code::DeadlineExceeded, &error.to_string()),
            RotationError::Spawn(_) | RotationError::Failed(_) => internal(&error),
        })
    }

    async fn rotate(&self, mut request: Rotate) -> Result<Answer, Refusal> {
        let volume = self.own(&request.volume_id).await?;
        let generation = request.generation;
        let add_links = std::mem::take(&mut request.add_links);
        let remove_links = std::mem::take(&mut request.remove_links);
        add_links.iter().chain(&remove_links).try_for_each(|name| root_name(name))?;
        let wanted: Shown = request.into();
        volume.may_show(wanted.clone());
        let operation = Operation::Rotate { generation, add_links, remove_links };
        let mounted = Arc::clone(&volume);
        self.perform(&volume, operation, move || mounted.shows(wanted)).await?;
        Ok(Body::Rotated(Rotated {}).into())
    }

    async fn retire(&self, request: Retire) -> Result<Answer, Refusal> {
        let volume = self.own(&request.volume_id).await?;
        let mounts = blocking(mountinfo::read)
            .await
            .map_err(|error| Refusal::new(Code::Internal, &error.to_string()))?;
        let place = self.driver.kubelet.mount_point(&volume.target);
        let bound = is_bound(&mounts, &place, request.generation);
        let operation = Operation::Retire { generation: request.generation, bound };
        self.perform(&volume, operation, || {}).await?;
        Ok(Body::Retired(Retired { bound }).into())
    }

    async fn touch(&self, request: Touch) -> Result<Answer, Refusal> {
        let volume = self.own(&request.volume_id).await?;
        let Touch { generation, paths, .. } = request;
        paths.iter().try_for_each(|path| object_path(path))?;
        self.perform(&volume, Operation::Touch { generation, paths }, || {}).await?;
        Ok(Body::Acknowledged(Acknowledged {}).into())
    }
}

impl Requests {
    /// Until this process holds every connection: an agent that leaves may be the only one that does. A dead
    /// mount's never comes.
    async fn held(&self) {
        let all = async {
            let missing =
                |volume: &Arc<Volume>| self.scope.covers(&volume.spec) && !volume.is_held();
            loop {
                let volumes = self.driver.volumes.all();
                let missing: Vec<_> = volumes.iter().filter(|volume| missing(volume)).collect();
                if missing.is_empty() {
                    return;
                }
                missing.iter().for_each(|volume| volume.nudge());
                self.driver.look_for_agents();
                tokio::time::sleep(HELD_LOOK).await;
            }
        };
        if tokio::time::timeout(HELD_PATIENCE, all).await.is_err() {
            tracing::warn!(instance = %self.instance, "a sotto-node leaves, and a volume is not held here");
        }
    }

    async fn resolve(&self, volume: &str) -> Result<Answer, Refusal> {
        let volume = self.own(volume).await?;
        let assignment = Some(assignment::anew(&self.driver, &volume).await?);
        Ok(Body::Resolved(Resolved { assignment }).into())
    }

    async fn connect_provider(&self, name: &str) -> Result<Answer, Refusal> {
        let connected = providers::connect(&self.driver.settings.provider_dirs, name).await?;
        let body = Body::ProviderConnected(ProviderConnected {});
        Ok(Answer { body, fd: Some(connected) })
    }
}

impl Handler for Requests {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        drop(fd); // no request of an agent comes with one
        match body {
            Body::Rotate(request) => self.rotate(request).await,
            Body::Retire(request) => self.retire(request).await,
            Body::Touch(request) => self.touch(request).await,
            Body::Leaving(_) => {
                match &self.scope {
                    Scope::Node => self.driver.broker.leaves(&self.instance),
                    Scope::Pod(uid) => self.driver.pods.leaves(uid, &self.instance),
                }
                self.held().await;
                Ok(Body::Acknowledged(Acknowledged {}).into())
            }
            Body::Resolve(request) if self.scope != Scope::Node => {
                self.resolve(&request.volume_id).await
            }
            // Nothing else is a sidecar's to ask.
            _ if self.scope != Scope::Node => Err(Refusal::new(
                Code::PermissionDenied,
                "the driver takes no such request of a sidecar",
            )),
            Body::ConnectProvider(request) => self.connect_provider(&request.provider).await,
            Body::Metrics(_) => {
                let text = self.driver.scrape();
                Ok(Body::MetricsText(MetricsText { text }).into())
            }
            _ => Err(Refusal::new(Code::Unimplemented, "the driver takes no such request")),
        }
    }
}

/// Whether a bind mount (a subPath) still shows a file of the generation of the volume mounted at `place`.
fn is_bound(mounts: &[Mount], place: &Path, generation: u64) -> bool {
    let Some(volume) = mountinfo::top_at(mounts, place) else { return false };
    let directories = [format!("/..{generation}"), format!("/..sotto/..{generation}")];
    mounts
        .iter()
        .filter(|mount| mount.device == volume.device)
        .any(|mount| directories.iter().any(|directory| mount.root.starts_with(directory)))
}

/// A name in a volume's root.
fn root_name(name: &str) -> Result<(), Refusal> {
    object_path(name)?;
    if name.contains('/') {
        return Err(Refusal::new(Code::InvalidArgument, "a root's name has a slash"));
    }
    Ok(())
}

fn object_path(path: &str) -> Result<(), Refusal> {
    ObjectPath::parse(path)
        .map(drop)
        .map_err(|error| Refusal::new(Code::InvalidArgument, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for hostile in ["/etc/passwd", "../x", "..data", "a/../../x", "", ".", "a\0b", "a/b"] {
            assert!(root_name(hostile).is_err(), "{hostile:?}");
        }
        assert!(root_name("password").is_ok());
        assert!(object_path("tls/key.pem").is_ok());
        assert!(object_path("/etc/shadow").is_err());
    }

    #[test]
    fn a_subpath_bind_of_the_generation_is_seen_and_no_other() {
        let table = "10 1 0:61 / /k/mount ro - fuse.sotto sotto:csi-1 rw\n\
                     11 1 0:61 /..2/password /k/subpath ro - fuse.sotto sotto:csi-1 rw\n\
                     12 1 0:62 /..3/password /k/other ro - fuse.sotto sotto:csi-2 rw\n\
                     13 1 0:61 /..4/key//deleted /k/third ro - fuse.sotto sotto:csi-1 rw\n";
        let mounts = mountinfo::parse(table.as_bytes()).unwrap();
        let bound = |generation| is_bound(&mounts, Path::new("/k/mount"), generation);
        assert!(bound(2) && bound(4));
        assert!(!bound(1) && !bound(3) && !bound(20));
        assert!(!is_bound(&mounts, Path::new("/k/gone"), 2));
    }
}
