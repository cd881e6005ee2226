//! The first half: a volume is served from what was left, before this process has a configuration.
//!
//! Invariant: nothing here asks anybody or reads a file. What can't be served is let go; what is served is told to
//! nobody yet.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use prost::Message;
use sotto_core::identity::{ClassName, StoreName, VolumeId};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::rotation::Freshness;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{
    FileMode, Generation, Object, SecretMemorySource, Snapshot, SnapshotBuilder,
};
use sotto_fuse::{Layout, Negotiated, Refusal, Server, Tree};
use sotto_handoff::message::Pod;
use sotto_proto::deposit::v1;
use sotto_runtime::memory::handover;
use sotto_supervisor::{Keeper, Kept};

use super::super::owner;
use super::super::request::{self, VolumeSpec};
use super::super::status;
use super::RestoreError;
use crate::audit::{AuditLog, VolumeAudit};

/// No limit: what is restored was within the administrator's when it was fetched.
const UNLIMITED: Limits = Limits {
    object_bytes: usize::MAX,
    volume_bytes: usize::MAX,
    objects: usize::MAX,
    volumes: usize::MAX,
};

/// Volumes that a former worker served, and that this process serves already.
#[derive(Default)]
pub struct ServedOn(pub(super) Vec<(String, Volume)>);

/// One of them.
pub(super) struct Volume {
    /// Without the values.
    pub(super) left: v1::Volume,
    pub(super) confirmed_ms: u64,
    pub(super) spec: Arc<VolumeSpec>,
    pub(super) init: Negotiated,
    pub(super) tree: Arc<Tree>,
    /// Of all generations but the current one, those whose values are there.
    pub(super) old: Vec<Generation>,
    /// The current one, and the one before it, if the kernel may not have turned to it yet.
    pub(super) turning: Option<(Arc<Snapshot>, Arc<Snapshot>)>,
    pub(super) server: Server,
}

impl ServedOn {
    /// Serves on what a former worker served.
    #[must_use]
    pub fn begin(
        kept: BTreeMap<String, Kept>,
        keeper: &Keeper,
        memory: &dyn SecretMemorySource,
        audit: &AuditLog,
    ) -> Self {
        let mut served = Vec::with_capacity(kept.len());
        for (volume, kept) in kept {
            let done = keeper.while_restoring(&volume, || begin(kept, memory, audit));
            match done.map_err(RestoreError::from).and_then(|done| done) {
                Ok(begun) => served.push((volume, begun)),
                Err(error) => super::let_go(keeper, &volume, &error),
            }
        }
        Self(served)
    }

    /// What the volume was planned with: see [`super::super::Settings::leaving`]. For an agent of one volume.
    #[must_use]
    pub fn settings(&self) -> Option<&[u8]> {
        self.0.first().map(|(_, volume)| volume.left.settings.as_slice())
    }

    /// The same of its former logins.
    pub fn former_settings(&self) -> impl Iterator<Item = &[u8]> {
        let volumes = self.0.iter().flat_map(|(_, volume)| &volume.left.former);
        volumes.map(|former| former.settings.as_slice())
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn begin(
    kept: Kept,
    memory: &dyn SecretMemorySource,
    audit: &AuditLog,
) -> Result<Volume, RestoreError> {
    let connection = kept.connection.ok_or(RestoreError::Incomplete("connection"))?;
    let values = kept.values.ok_or(RestoreError::Incomplete("values"))?;
    let mut left = v1::Volume::decode(handover::withdraw(&values)?.expose())?;
    let spec = Arc::new(spec(&left)?);
    let init = left.init.map(negotiated).ok_or(RestoreError::Incomplete("INIT"))?;
    let mut generations = Vec::new();
    for generation in left.generations.iter().chain(&left.staged) {
        generations.push(Arc::new(snapshot(memory, &spec, generation)?));
    }
    // The staged one is the last: whether the kernel has turned to it or not, both can be read.
    let current = generations.pop().ok_or(RestoreError::Incomplete("generation"))?;
    let before = left.staged.as_ref().and_then(|_| generations.last().cloned());
    let old = generations.iter().map(|snapshot| snapshot.generation()).collect();
    let tree = Arc::new(tree(&left, Arc::clone(&current), generations, before.as_ref())?);
    let freshness = if left.closed { Freshness::Closed } else { Freshness::Fresh };
    let confirmed = super::time(kept.confirmed_ms);
    tree.set_status(status::text(freshness, &current, confirmed), confirmed);
    (left.generations, left.staged) = (Vec::new(), None);
    let turning = before.map(|before| (current, before));
    let server = serve(audit, &spec, &left, &tree, connection, &init)?;
    Ok(Volume { left, confirmed_ms: kept.confirmed_ms, spec, init, tree, old, turning, server })
}

fn tree(
    left: &v1::Volume,
    current: Arc<Snapshot>,
    older: Vec<Arc<Snapshot>>,
    before: Option<&Arc<Snapshot>>,
) -> Result<Tree, RestoreError> {
    let followed = left.followed.iter().filter_map(|layout| {
        Some(Layout::restore(Generation::new(layout.generation)?, layout.paths.clone()))
    });
    let tree = Tree::restore(current, older, followed.collect());
    if let Some(before) = before {
        tree.unsettle(before.generation());
    }
    for path in &left.refused {
        let path = ObjectPath::parse(path).map_err(|_| RestoreError::Wrong("object"))?;
        tree.refuse(&path, Refusal::Denied);
    }
    if left.closed {
        tree.close();
    }
    Ok(tree)
}

fn serve(
    log: &AuditLog,
    spec: &VolumeSpec,
    left: &v1::Volume,
    tree: &Arc<Tree>,
    connection: OwnedFd,
    init: &Negotiated,
) -> Result<Server, RestoreError> {
    let mut audit = VolumeAudit::new(log.clone(), &spec.volume, &spec.identity);
    audit.set_store(&StoreName::parse(left.store.clone())?);
    let name = owner::thread_name(&spec.volume);
    Ok(Server::start(Arc::clone(tree), connection, init, true, Arc::new(audit), &name)?)
}

fn spec(left: &v1::Volume) -> Result<VolumeSpec, RestoreError> {
    let spec = left.spec.clone().ok_or(RestoreError::Incomplete("spec"))?;
    let v1::Spec { namespace, pod_name: name, pod_uid: uid, service_account, node, .. } = spec;
    let identity = request::identity(Pod { namespace, name, uid, service_account, node })?;
    Ok(VolumeSpec {
        volume: VolumeId::parse(left.volume_id.clone())?,
        identity,
        class: ClassName::parse(spec.class)?,
        group: spec.mount_group,
        optional: spec.optional,
        refresh: spec.refresh_ms.map(Duration::from_millis),
        max_stale: spec.max_stale_ms.map(Duration::from_millis),
        target_path: spec.target_path,
    })
}

fn snapshot(
    memory: &dyn SecretMemorySource,
    spec: &VolumeSpec,
    generation: &v1::Generation,
) -> Result<Snapshot, RestoreError> {
    let mut builder = SnapshotBuilder::new(UNLIMITED).or_empty();
    for object in &generation.objects {
        let path = ObjectPath::parse(&object.path).map_err(|_| RestoreError::Wrong("object"))?;
        let mode = object.mode.and_then(FileMode::new);
        let (version, value) = (object.version.clone(), SecretBytes::new(object.value.clone()));
        let added = builder.add(Object { path, mode, version, value });
        added.map_err(|_| RestoreError::Wrong("object"))?;
    }
    let number = Generation::new(generation.number).ok_or(RestoreError::Wrong("generation"))?;
    let created = UNIX_EPOCH.checked_add(Duration::from_nanos(generation.created_ns));
    let created = created.ok_or(RestoreError::Wrong("time"))?;
    let built = builder.build(number, created, spec.group, memory);
    built.map_err(|_| RestoreError::Wrong("generation"))
}

fn negotiated(init: v1::Init) -> Negotiated {
    let v1::Init { major, minor, max_readahead, flags, max_write } = init;
    Negotiated { major, minor, max_readahead, flags, max_write }
}
