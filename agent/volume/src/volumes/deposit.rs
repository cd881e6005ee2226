//! What a served volume leaves with the supervisor for the next worker, as one message.
//!
//! Invariant: the message is only ever in wiped memory and in a memfd_secret; it holds a generation that is being
//! turned to before the first step towards it is made. Written by the volume's owner, read by
//! [`super::restore`]. The messages' own buffers are wiped by the process's allocator.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use sotto_core::class::SecretProviderClass;
use sotto_core::clock::{milliseconds, nearest_millisecond};
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretString;
use sotto_core::snapshot::Snapshot;
use sotto_fuse::{Layout, Negotiated};
use sotto_proto::deposit::v1;
use sotto_store::{Lease, VolumePlan};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::former::Former;
use super::held::Held;
use super::request::VolumeSpec;
use super::wipe::copied;

/// What was left is left again after so long, though it is the same: it may have been lost.
const LEFT_FOR: Duration = Duration::from_secs(3_600);

/// Of what was left last, and when; under a key of its own: it tells that two are the same, and nothing of what they are.
#[derive(Default)]
pub(super) struct Fingerprint {
    key: RandomState,
    last: Option<(u64, Instant)>,
}

impl Fingerprint {
    /// Nothing is left any more.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Whether it was another one, or is to be left again.
    fn becomes(&mut self, bytes: &[u8], now: Instant) -> bool {
        let hash = self.key.hash_one(bytes);
        let is_left = self.last.is_some_and(|(last, at)| last == hash && now - at < LEFT_FOR);
        if !is_left {
            self.last = Some((hash, now));
        }
        !is_left
    }
}

/// What there is to be left.
pub(super) struct Left<'a> {
    pub(super) spec: &'a VolumeSpec,
    pub(super) init: Negotiated,
    pub(super) held: &'a Held,
    pub(super) pod_token: Option<&'a SecretString>,
    /// The same moment by two clocks, but for what lies between two looks.
    pub(super) now: SystemTime,
    pub(super) at: Instant,
}

impl Left<'_> {
    /// The message, unless it is the one that was left before.
    pub(super) fn encode_unless(&self, before: &mut Fingerprint) -> Option<Zeroizing<Vec<u8>>> {
        let message = self.message();
        // Of its final size at once: nothing is left where it was smaller.
        let mut bytes = Zeroizing::new(Vec::with_capacity(message.encoded_len()));
        // A vector grows.
        let _ = message.encode(&mut *bytes);
        before.becomes(&bytes, self.at).then_some(bytes)
    }

    /// When the values were found to be good, in milliseconds since 1970.
    pub(super) fn confirmed_ms(&self) -> u64 {
        since_epoch(self.now.checked_sub(self.held.turning.age()).unwrap_or(UNIX_EPOCH))
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
        v1::Volume {
            volume_id: spec.volume.as_str().to_owned(),
            spec: Some(spec_message(spec)),
            init: Some(init_message(self.init)),
            class: Some(class_message(&held.class, &held.plan)),
            generations: older.iter().map(generation_message).collect(),
            hidden: held.hidden.iter().map(|generation| generation.get()).collect(),
            refused: turning.refused().map(|index| path(&held.plan, index)).collect(),
            closed: turning.is_closed(),
            last_generation: turning.last_generation().get(),
            pod_token: self.pod_token.map(|token| token.expose().to_owned()).unwrap_or_default(),
            session: held.session.carry().to_vec(),
            leases: turning.leases().map(|lease| self.lease_message(lease)).collect(),
            staged: staged.map(generation_message),
            expiring: turning.ending().map(|index| index as u32).collect(),
            followed: held.tree.followed().iter().map(|layout| layout_message(layout)).collect(),
            store: held.plan.store.to_string(),
            settings: held.settings.left().to_vec(),
            former: held.former.iter().map(Former::message).collect(),
        }
    }

    fn lease_message(&self, lease: &Lease) -> v1::Lease {
        let age = self.at.saturating_duration_since(lease.life.since);
        let since = self.now.checked_sub(age).unwrap_or(UNIX_EPOCH);
        v1::Lease {
            id: lease.id.as_ref().map(|id| id.expose().to_owned()).unwrap_or_default(),
            duration_ms: milliseconds(lease.life.duration),
            since_ms: nearest_millisecond(since).unwrap_or_default(),
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

fn since_epoch(time: SystemTime) -> u64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_what_has_changed_until_it_is_forgotten_or_old() {
        let (mut left, now) = (Fingerprint::default(), Instant::now());
        assert!(left.becomes(b"one", now), "nothing was left");
        assert!(!left.becomes(b"one", now));
        assert!(left.becomes(b"two", now) && left.becomes(b"one", now));
        left.forget();
        assert!(left.becomes(b"one", now));
        assert!(!left.becomes(b"one", now + LEFT_FOR - Duration::from_secs(1)));
        assert!(left.becomes(b"one", now + LEFT_FOR), "it may have been lost");
        assert!(!left.becomes(b"one", now + LEFT_FOR + Duration::from_secs(1)));
    }
}
