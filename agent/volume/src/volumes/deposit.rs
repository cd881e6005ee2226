//! What a served volume leaves with the supervisor for the next worker, as one message.
//!
//! Invariant: the message is only ever in wiped memory and in a memfd_secret; it holds a generation that is being
//! turned to before the first step towards it is made. Written by the volume's owner, read by
//! [`super::restore`]. The messages' own buffers are wiped by the process's allocator.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sotto_core::class::SecretProviderClass;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretString;
use sotto_core::snapshot::Snapshot;
use sotto_fuse::{Layout, Negotiated};
use sotto_proto::deposit::v1;
use sotto_store::{Lease, VolumePlan};
use zeroize::Zeroizing;

use super::former::Former;
use super::held::Held;
use super::request::VolumeSpec;
use super::wipe::copied;

/// What there is to be left.
pub(super) struct Left<'a> {
    pub(super) spec: &'a VolumeSpec,
    pub(super) init: Negotiated,
    pub(super) held: &'a Held,
    pub(super) pod_token: Option<&'a SecretString>,
    pub(super) now: SystemTime,
}

impl Left<'_> {
    /// The message.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let message = self.message();
        // Of its final size at once: nothing is left where it was smaller.
        let mut bytes = Zeroizing::new(Vec::with_capacity(message.encoded_len()));
        // A vector grows.
        let _ = message.encode(&mut *bytes);
        bytes
    }

    fn message(&self) -> v1::Volume {
        let Self { spec, held, .. } = self;
        let staged = held.staged.as_ref();
        let is_staged = |snapshot: &Snapshot| {
            staged.is_some_and(|staged| staged.generation() == snapshot.generation())
        };
        let mut older = held.tree.snapshots();
        older.retain(|snapshot| !is_staged(snapshot));
        let turning = &held.turning;
        let confirmed = self.now.checked_sub(turning.age()).unwrap_or(UNIX_EPOCH);
        v1::Volume {
            volume_id: spec.volume.as_str().to_owned(),
            spec: Some(spec_message(spec)),
            init: Some(init_message(self.init)),
            class: Some(class_message(&held.class, &held.plan)),
            generations: older.iter().map(generation_message).collect(),
            hidden: held.hidden.iter().map(|generation| generation.get()).collect(),
            refused: turning.refused().map(|index| path(&held.plan, index)).collect(),
            closed: turning.is_closed(),
            confirmed_ms: since_epoch(confirmed),
            last_generation: turning.last_generation().get(),
            pod_token: self.pod_token.map(|token| token.expose().to_owned()).unwrap_or_default(),
            session: held.session.carry().to_vec(),
            leases: turning.leases().map(|lease| self.lease_message(lease)).collect(),
            staged: staged.map(generation_message),
            expiring: turning.ending().map(|index| index as u32).collect(),
            followed: held.tree.followed().iter().map(|layout| layout_message(layout)).collect(),
            store: held.plan.store.to_string(),
            status: held.tree.status().to_vec(),
            settings: held.settings.left().to_vec(),
            former: held.former.iter().map(Former::message).collect(),
        }
    }

    fn lease_message(&self, lease: &Lease) -> v1::Lease {
        let since = self.now.checked_sub(lease.life.since.elapsed()).unwrap_or(UNIX_EPOCH);
        v1::Lease {
            id: lease.id.as_ref().map(|id| id.expose().to_owned()).unwrap_or_default(),
            duration_ms: milliseconds(lease.life.duration),
            since_ms: since_epoch(since),
            renewable: lease.life.renewable,
            objects: lease.objects.iter().map(|index| *index as u32).collect(),
        }
    }
}

fn path(plan: &VolumePlan, index: usize) -> String {
    plan.objects.get(index).map(|object| object.path.to_string()).unwrap_or_default()
}

fn spec_message(spec: &VolumeSpec) -> v1::Spec {
    let identity = &spec.identity;
    v1::Spec {
        namespace: identity.namespace.as_str().to_owned(),
        pod_name: identity.pod_name.as_str().to_owned(),
        pod_uid: identity.pod_uid.as_str().to_owned(),
        service_account: identity.service_account.as_str().to_owned(),
        node: identity.node.as_str().to_owned(),
        class: spec.class.as_str().to_owned(),
        mount_group: spec.group,
        optional: spec.optional,
        refresh_ms: spec.refresh.map(milliseconds),
        max_stale_ms: spec.max_stale.map(milliseconds),
        target_path: spec.target_path.clone(),
    }
}

fn init_message(init: Negotiated) -> v1::Init {
    let Negotiated { major, minor, max_readahead, flags, max_write } = init;
    v1::Init { major, minor, max_readahead, flags, max_write }
}

fn class_message(class: &SecretProviderClass, plan: &VolumePlan) -> v1::Class {
    v1::Class {
        provider: class.provider.clone(),
        parameters: class.parameters.clone().into_iter().collect(),
        named: plan.objects.iter().map(|object| object.path.to_string()).collect(),
    }
}

fn layout_message(layout: &Layout) -> v1::Layout {
    v1::Layout {
        generation: layout.generation().get(),
        paths: layout.paths().iter().map(ToString::to_string).collect(),
    }
}

fn generation_message(snapshot: &Arc<Snapshot>) -> v1::Generation {
    let object = |path: &str| {
        let object = copied(snapshot, &ObjectPath::parse(path).ok()?)?;
        Some(v1::Object {
            path: path.to_owned(),
            mode: object.mode.map(|mode| u32::from(mode.bits())),
            version: object.version,
            value: object.value.expose().to_vec(),
        })
    };
    let created = snapshot.created().duration_since(UNIX_EPOCH).unwrap_or_default();
    v1::Generation {
        number: snapshot.generation().get(),
        created_ns: u64::try_from(created.as_nanos()).unwrap_or(u64::MAX),
        objects: snapshot.versions().iter().filter_map(|one| object(&one.id)).collect(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch(time: SystemTime) -> u64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
