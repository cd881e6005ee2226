//! The volume that shows a pod's socket to the pod's sidecar, from its publish to its unpublish.
//!
//! Invariant: the socket listens before it is shown. Its unpublish comes when every container of the pod has
//! ended, so the connections of the pod's secrets are ended there: kubelet itself looks at a subPath of them
//! before it unpublishes them, and would wait for ever for a server that is gone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{PodUid, VolumeId};

use super::directory::{self, CONTAINERS_LABEL, Shown};
use super::listener;
use crate::driver::{Driver, blocking};
use crate::mount::{self, End};
use crate::mountinfo;
use crate::node::checks::Handoff;
use crate::publish::PublishError;
use crate::target::{TargetPath, is_gone};
use crate::unpublish::{UnpublishError, clear};
use crate::volume::{Ending, Mode};
use crate::volumes::{Busy, Turn};

/// How long a call waits for another one of the same volume.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries to open a socket at start.
const OPEN_PAUSE: Duration = Duration::from_secs(5);

/// What mountinfo shows at the target.
enum Seen {
    Nothing,
    Ours,
    Foreign,
}

/// Publishes it, or finds that it is published.
///
/// # Errors
/// Why it isn't; nothing is left then.
pub async fn publish(driver: &Arc<Driver>, request: Handoff) -> Result<(), PublishError> {
    let Handoff { id, target, identity, context } = request;
    let pod = identity.pod_uid.clone();
    let turn = pods_turn(driver, &pod).await;
    match seen(driver, &target, &pod).await.map_err(PublishError::MountTable)? {
        // An error would cost the pod its directory (kubernetes#121271).
        Seen::Ours => {
            if let Err(error) = listener::open(driver, &pod, Some(&id)).await {
                tracing::error!(volume = %id, %error, "the pod's socket can't be opened");
            }
            return Ok(());
        }
        Seen::Foreign => {
            tracing::warn!(volume = %id, %target, "something else is on the target: it is left as it is");
            return Ok(());
        }
        Seen::Nothing => {}
    }
    let _turn = turn?;
    if driver.is_leaving() {
        return Err(PublishError::Leaving);
    }
    if is_shown(driver, &pod).await.map_err(PublishError::MountTable)? {
        return Err(PublishError::SecondHandoff);
    }
    if driver.pods.count() >= driver.settings.max_volumes {
        return Err(PublishError::Full(driver.pods.count()));
    }
    let shown = show(driver, &id, &target, (&pod, context)).await;
    if shown.is_err() {
        take_away(driver, &target, &pod).await;
    } else {
        tracing::info!(volume = %id, %target, pod = %identity, "the sidecar's socket is shown");
    }
    shown
}

/// One call at a time for each pod, whatever the volume's id: a second volume would share the directory.
async fn pods_turn<'a>(driver: &'a Driver, pod: &PodUid) -> Result<Turn<'a>, Busy> {
    // kubelet's own ids begin otherwise.
    match VolumeId::parse(format!("handoff-of-{pod}")) {
        Ok(key) => driver.volumes.turn(&key, TURN_PATIENCE).await,
        Err(_) => Err(Busy),
    }
}

async fn seen(driver: &Driver, target: &TargetPath, pod: &PodUid) -> io::Result<Seen> {
    let place = driver.kubelet.mount_point(target);
    let (run_dir, pod) = (driver.settings.run_dir.clone(), pod.clone());
    blocking(move || {
        let mounts = mountinfo::read()?;
        Ok(match mountinfo::top_at(&mounts, &place) {
            None => Seen::Nothing,
            Some(top) if Shown::new(&run_dir, &mounts).by(&pod, top) => Seen::Ours,
            Some(_) => Seen::Foreign,
        })
    })
    .await
}

/// Whether the pod's socket is shown anywhere.
async fn is_shown(driver: &Driver, pod: &PodUid) -> io::Result<bool> {
    let (run_dir, pod) = (driver.settings.run_dir.clone(), pod.clone());
    blocking(move || {
        let mounts = mountinfo::read()?;
        Ok(Shown::new(&run_dir, &mounts).anywhere(&pod))
    })
    .await
}

async fn show(
    driver: &Arc<Driver>,
    id: &VolumeId,
    target: &TargetPath,
    (pod, context): (&PodUid, Option<String>),
) -> Result<(), PublishError> {
    listener::open(driver, pod, Some(id)).await.map_err(PublishError::Handoff)?;
    let (kubelet, run_dir) = (Arc::clone(&driver.kubelet), driver.settings.run_dir.clone());
    let (target, pod) = (target.clone(), pod.clone());
    let label = driver.settings.has_selinux.then(|| context.unwrap_or(CONTAINERS_LABEL.to_owned()));
    blocking(move || {
        if let Some(label) = label {
            directory::label(&run_dir, &pod, &label).map_err(PublishError::Handoff)?;
        }
        let parent = kubelet.open_parent(&target);
        let parent = parent.map_err(|error| PublishError::Target(target.clone(), error))?;
        let directory = parent.make_target().map_err(PublishError::Attach)?;
        directory::show(&run_dir, &pod, &directory).map_err(PublishError::Attach)
    })
    .await
}

async fn take_away(driver: &Driver, target: &TargetPath, pod: &PodUid) {
    let cleared = clear(driver, target).await;
    let removed = listener::close(driver, pod).await;
    if let Err(error) = cleared.and(removed) {
        tracing::warn!(%target, %error, "a failed publish left something behind");
    }
}

/// Whether the target is that of a volume with a socket, or was to become that.
///
/// # Errors
/// The mount table can't be read.
pub async fn is_one(
    driver: &Driver,
    id: &VolumeId,
    target: &TargetPath,
) -> Result<bool, UnpublishError> {
    if driver.pods.has_handoff(target.pod_uid(), id) {
        return Ok(true);
    }
    let seen = seen(driver, target, target.pod_uid()).await;
    let seen = seen.map_err(|error| UnpublishError::Target(target.clone(), error))?;
    Ok(matches!(seen, Seen::Ours))
}

/// Takes it away, and ends what the pod's secrets hang on.
///
/// # Errors
/// What is left; kubelet calls again.
pub async fn unpublish(
    driver: &Driver,
    id: VolumeId,
    target: TargetPath,
) -> Result<(), UnpublishError> {
    let _turn = pods_turn(driver, target.pod_uid()).await?;
    let failed = |error| UnpublishError::Target(target.clone(), error);
    let pod = target.pod_uid().clone();
    // From here on nobody mounts the pod's secrets anew.
    let _ending = end_connections(driver, &pod).await.map_err(failed)?;
    clear(driver, &target).await.map_err(failed)?;
    listener::close(driver, &pod).await.map_err(failed)?;
    tracing::info!(volume = %id, %target, "the sidecar's socket is gone");
    Ok(())
}

/// By force: whoever waits there, kubelet too, gets an error now. A mount that nobody uses goes at once; of one
/// that is in use only the connection ends.
async fn end_connections(driver: &Driver, pod: &PodUid) -> io::Result<Vec<Ending>> {
    let mut endings = Vec::new();
    for volume in driver.volumes.all() {
        if volume.spec.mode != Mode::Sidecar || volume.spec.identity.pod_uid != *pod {
            continue;
        }
        endings.push(volume.ending());
        let (kubelet, target) = (Arc::clone(&driver.kubelet), volume.target.clone());
        let ended = blocking(move || match kubelet.open_parent(&target) {
            Ok(parent) => mount::end(&parent, End::Connection),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        });
        ended.await?;
        tracing::info!(volume = %volume.id, "its pod has ended: its connection is ended");
    }
    Ok(endings)
}

/// At start: the sockets of pods that have them are opened again, and what is left of others is removed.
///
/// # Errors
/// The run directory or the mount table can't be read.
pub(crate) async fn resume(driver: &Arc<Driver>) -> io::Result<()> {
    let run_dir = driver.settings.run_dir.clone();
    let (shown, left): (Vec<_>, Vec<_>) = blocking(move || {
        let mounts = mountinfo::read()?;
        let shown = Shown::new(&run_dir, &mounts);
        let pods = directory::all(&run_dir)?.into_iter();
        Ok::<_, io::Error>(pods.partition(|pod| shown.anywhere(pod)))
    })
    .await?;
    for pod in shown {
        if let Err(error) = listener::open(driver, &pod, None).await {
            tracing::error!(%pod, %error, "the pod's socket can't be opened: it is tried again");
            driver.drain.spawn(open_later(Arc::clone(driver), pod));
        }
    }
    for pod in left {
        tracing::warn!(%pod, "the rest of a sidecar's socket is removed");
        if let Err(error) = listener::close(driver, &pod).await {
            tracing::warn!(%pod, %error, "it stays");
        }
    }
    Ok(())
}

/// kubelet doesn't publish it again.
async fn open_later(driver: Arc<Driver>, pod: PodUid) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(OPEN_PAUSE) => {}
            () = driver.drain.begun() => return,
        }
        let Ok(_turn) = pods_turn(&driver, &pod).await else { continue };
        match is_shown(&driver, &pod).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => continue,
        }
        if listener::open(&driver, &pod, None).await.is_ok() {
            return;
        }
    }
}
