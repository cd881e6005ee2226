//! Volumes that a former worker served, served on by this one: nobody is asked, neither the driver nor the store.
//!
//! Invariant: what is restored has the numbers that it had: inodes, generations, modes and times are the same,
//! so the kernel notices nothing. What can't be restored is let go: the driver hands the volume out again, and
//! it is fetched anew. Called once, before anything else is asked of the volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, IdentifierError, VolumeId};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::secret::{SecretBytes, SecretString};
use sotto_core::snapshot::{FileMode, Generation, Object, Snapshot, SnapshotBuilder};
use sotto_fuse::{Layout, Negotiated, Refusal, Server, Tree};
use sotto_handoff::message::Pod;
use sotto_proto::deposit::v1;
use sotto_runtime::memory::handover;
use sotto_store::plan::ObjectPlan;
use sotto_store::session::{LeaseId, Renewed};
use sotto_store::{Lease, VolumePlan, grammar};
use sotto_supervisor::Kept;
use tokio::time::Instant;

use super::held::{Held, Resumed};
use super::owner;
use super::prepare::policy;
use super::registry::Found;
use super::request::{self, VolumeSpec};
use super::turn::Turn;
use super::{Shared, Volumes};
use crate::audit::VolumeAudit;

/// No limit: what is restored was within the administrator's when it was fetched.
const UNLIMITED: Limits = Limits {
    object_bytes: usize::MAX,
    volume_bytes: usize::MAX,
    objects: usize::MAX,
    volumes: usize::MAX,
};

/// Why a volume is not restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("the former worker left no {0} of it")]
    Incomplete(&'static str),
    #[error("what the former worker left can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("what the former worker left is no message: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("what the former worker left has a wrong {0}")]
    Wrong(&'static str),
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    #[error("its class doesn't fit the configuration any more")]
    Class,
    #[error("its login can't be resumed")]
    Session,
    #[error("the volume is known already, or there are too many")]
    Known,
}

impl Volumes {
    /// Serves on what a former worker served. Returns how many volumes those are.
    pub fn restore(&self, kept: BTreeMap<String, Kept>) -> usize {
        let keeper = &self.0.services.keeper;
        let mut restored = 0;
        for (volume, kept) in kept {
            let done = keeper.while_restoring(&volume, || restore(&self.0, kept));
            match done.map_err(RestoreError::from).and_then(|done| done) {
                Ok(()) => restored += 1,
                Err(error) => {
                    tracing::warn!(volume, %error, "a volume is not served on: the driver hands it out anew");
                    if let Err(error) = keeper.forget(&volume) {
                        tracing::warn!(volume, %error, "the supervisor could not be told");
                    }
                }
            }
        }
        restored
    }
}

fn restore(shared: &Arc<Shared>, kept: Kept) -> Result<(), RestoreError> {
    let connection = kept.connection.ok_or(RestoreError::Incomplete("connection"))?;
    let values = kept.values.ok_or(RestoreError::Incomplete("values"))?;
    let left = v1::Volume::decode(handover::withdraw(&values)?.expose())?;
    let spec = Arc::new(spec(&left)?);
    let init = left.init.map(negotiated).ok_or(RestoreError::Incomplete("INIT"))?;
    let token = SecretString::new(left.pod_token.clone());
    let (held, again) = held(shared, &spec, &left, &token)?;
    let found = shared.registry.find_or_add(&spec, shared.services.volume_limit);
    let Ok(Found::Added(registered, commands)) = found else { return Err(RestoreError::Known) };
    let server = serve(shared, &spec, &held, connection, init)?;
    let owner = owner::Restored { spec, registered, commands, held, server, init, token, again };
    owner.spawn(shared);
    Ok(())
}

fn serve(
    shared: &Shared,
    spec: &VolumeSpec,
    held: &Held,
    connection: OwnedFd,
    init: Negotiated,
) -> Result<Server, RestoreError> {
    let log = shared.services.audit.clone();
    let mut audit = VolumeAudit::new(log, spec.volume.clone(), spec.identity.clone());
    audit.set_store(held.plan.store.clone());
    let (tree, name) = (Arc::clone(&held.tree), owner::thread_name(&spec.volume));
    Ok(Server::start(tree, connection, &init, true, Arc::new(audit), &name)?)
}

/// The volume as it was, with the turn that was under way.
fn held(
    shared: &Shared,
    spec: &VolumeSpec,
    left: &v1::Volume,
    token: &SecretString,
) -> Result<(Held, Option<Turn>), RestoreError> {
    let class = Arc::new(class(spec, left)?);
    let plan = plan(shared, spec, left, &class)?;
    let store = shared.services.stores.get(&plan.store).ok_or(RestoreError::Class)?;
    let session = store.resume(&plan, token, &left.session).ok_or(RestoreError::Session)?;
    let mut generations = Vec::new();
    for generation in left.generations.iter().chain(&left.staged) {
        generations.push(Arc::new(snapshot(shared, spec, generation)?));
    }
    // The staged one is the last: whether the kernel has turned to it or not, both can be read.
    let current = generations.pop().ok_or(RestoreError::Incomplete("generation"))?;
    let before = left.staged.as_ref().and_then(|_| generations.last().cloned());
    let followed = left.followed.iter().filter_map(|layout| {
        Some(Layout::restore(Generation::new(layout.generation)?, layout.paths.clone()))
    });
    let tree = Tree::restore(Arc::clone(&current), generations.clone(), followed.collect());
    if let Some(before) = &before {
        tree.unsettle(before.generation());
    }
    for path in &left.refused {
        let path = ObjectPath::parse(path).map_err(|_| RestoreError::Wrong("object"))?;
        tree.refuse(&path, Refusal::Denied);
    }
    if left.closed {
        tree.close();
    }
    let resumed = Resumed {
        age: age_of(left.confirmed_ms),
        last: Generation::new(left.last_generation).ok_or(RestoreError::Wrong("generation"))?,
        refused: places(&plan, &left.refused),
        is_closed: left.closed,
        expiring: left.expiring.iter().map(|index| *index as usize).collect(),
        leases: left.leases.iter().map(lease).collect(),
        old: generations.iter().map(|snapshot| snapshot.generation()).collect(),
        hidden: left.hidden.iter().filter_map(|number| Generation::new(*number)).collect(),
    };
    let policy = policy(shared, spec);
    let clock = &*shared.services.clock;
    let again = before.map(|before| Turn {
        next: Some(Arc::clone(&current)),
        again_from: Some(before),
        ..Turn::default()
    });
    let staged = again.as_ref().and_then(|turn| turn.next.clone());
    let held = Held::resumed(class, plan, session, (tree, staged), policy, resumed, clock);
    Ok((held, again))
}

fn places(plan: &VolumePlan, paths: &[String]) -> BTreeSet<usize> {
    let place = |path: &String| plan.objects.iter().position(|it| it.path.as_str() == path);
    paths.iter().filter_map(place).collect()
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

fn class(spec: &VolumeSpec, left: &v1::Volume) -> Result<SecretProviderClass, RestoreError> {
    let class = left.class.clone().ok_or(RestoreError::Incomplete("class"))?;
    Ok(SecretProviderClass {
        namespace: spec.identity.namespace.clone(),
        name: spec.class.clone(),
        provider: class.provider,
        parameters: class.parameters.into_iter().collect(),
        wants_secret_objects: false,
    })
}

/// Planned again, with the stores as they are configured now.
fn plan(
    shared: &Shared,
    spec: &VolumeSpec,
    left: &v1::Volume,
    class: &SecretProviderClass,
) -> Result<VolumePlan, RestoreError> {
    let services = &shared.services;
    let planned = grammar::plan(class, &spec.identity, &services.stores, &services.limits);
    let mut plan = planned.map_err(|_| RestoreError::Class)?;
    if plan.objects.is_empty() {
        for name in left.class.iter().flat_map(|class| &class.named) {
            let path = ObjectPath::parse(name).map_err(|_| RestoreError::Wrong("object"))?;
            plan.objects.push(ObjectPlan { path, mode: None });
        }
    }
    Ok(plan)
}

fn snapshot(
    shared: &Shared,
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
    let built = builder.build(number, created, spec.group, &*shared.services.memory);
    built.map_err(|_| RestoreError::Wrong("generation"))
}

fn lease(left: &v1::Lease) -> Lease {
    let since = Instant::now().checked_sub(age_of(left.since_ms)).unwrap_or_else(Instant::now);
    Lease {
        id: (!left.id.is_empty()).then(|| LeaseId::new(&left.id)),
        life: Renewed {
            duration: Duration::from_millis(left.duration_ms),
            since,
            renewable: left.renewable,
        },
        objects: left.objects.iter().map(|index| *index as usize).collect(),
    }
}

/// A clock that was set back meanwhile: as young as it can be.
fn age_of(milliseconds: u64) -> Duration {
    let then = UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
    then.and_then(|then| SystemTime::now().duration_since(then).ok()).unwrap_or_default()
}

fn negotiated(init: v1::Init) -> Negotiated {
    let v1::Init { major, minor, max_readahead, flags, max_write } = init;
    Negotiated { major, minor, max_readahead, flags, max_write }
}
