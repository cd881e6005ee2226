//! A request as the driver sends it, turned into types that have passed their checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{
    ClassName, IdentifierError, Namespace, NodeName, PodName, PodUid, ServiceAccountName, VolumeId,
    WorkloadIdentity,
};
use sotto_core::secret::SecretString;
use sotto_core::snapshot::{Generation, ObjectVersion};
use sotto_handoff::message::{self, Pod, Prepare};
use sotto_store::session::PublishSecrets;
use zeroize::Zeroizing;

/// What a volume is, for its whole life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeSpec {
    pub(super) volume: VolumeId,
    pub(super) identity: WorkloadIdentity,
    pub(super) class: ClassName,
    pub(super) group: Option<u32>,
    pub(super) optional: bool,
    pub(super) refresh: Option<Duration>,
    pub(super) max_stale: Option<Duration>,
    /// For the status object and nothing else.
    pub(super) target_path: String,
}

/// What the mount shows already.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// `None`: it is a new volume.
    pub(super) generation: Option<Generation>,
    /// Fingerprint of its names; 0 for a new volume.
    pub(super) layout: u64,
    /// Fingerprint of what it shows; 0 where that isn't known.
    pub(super) content: u64,
    /// Its objects; empty where they aren't known.
    pub(super) objects: Arc<[ObjectVersion]>,
    /// The highest number that was used, or may have been.
    last: u64,
    /// A newer generation that it may show already.
    pub(super) wanted: Option<Wanted>,
    /// What it showed a moment ago; the oldest first.
    pub(super) older: Vec<Wanted>,
}

/// Generation, content, and the generation that is being turned to.
pub(super) type Told = (Option<Generation>, u64, Option<Generation>);

/// A generation that was being turned to, or from.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) generation: Generation,
    pub(super) layout: u64,
    pub(super) content: u64,
    pub(super) objects: Arc<[ObjectVersion]>,
}

impl Shown {
    /// The number that comes so many after every one that was used.
    pub(super) fn after(&self, steps: u64) -> Option<Generation> {
        let last = self.generation.map_or(0, Generation::get).max(self.last);
        Generation::new(last.checked_add(steps)?)
    }

    /// What has to be the same for both to say the same of a mount.
    pub(super) fn told(&self) -> Told {
        let wanted = self.wanted.as_ref().map(|wanted| wanted.generation);
        (self.generation, self.content, wanted)
    }
}

/// What kubelet brings anew with each publish.
pub(super) struct Brought {
    /// Its JSON map of tokens by audience.
    pub(super) tokens: Zeroizing<Vec<u8>>,
    /// The data of `nodePublishSecretRef`, a JSON map; empty without one.
    publish_secrets: Zeroizing<Vec<u8>>,
}

impl Brought {
    pub(super) fn new(tokens: Vec<u8>, publish_secrets: Vec<u8>) -> Self {
        let (tokens, publish_secrets) = (Zeroizing::new(tokens), Zeroizing::new(publish_secrets));
        Self { tokens, publish_secrets }
    }

    /// For a provider. What the driver writes is a map.
    pub(super) fn publish_secrets(&self) -> PublishSecrets {
        let read = serde_json::from_slice::<BTreeMap<String, String>>(&self.publish_secrets);
        let secret = |(key, value)| (key, SecretString::new(value));
        PublishSecrets::new(read.unwrap_or_default().into_iter().map(secret).collect())
    }
}

/// A Prepare.
pub(super) struct PrepareRequest {
    pub(super) spec: VolumeSpec,
    pub(super) brought: Brought,
    pub(super) deadline: Duration,
    /// What the mount shows already.
    pub(super) shown: Shown,
}

/// What is wrong with a request of the driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It names no pod.
    #[error("the request names no pod")]
    NoPod,
    /// An identifier breaks its syntax.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// A pod of another node.
    #[error("the pod is bound to node {pod}, this agent runs on {own}: check --node-name")]
    OtherNode {
        /// The pod's.
        pod: NodeName,
        /// This agent's.
        own: NodeName,
    },
}

pub(super) fn volume(id: &str) -> Result<VolumeId, RequestError> {
    Ok(VolumeId::parse(id)?)
}

pub(super) fn read(
    message: Prepare,
    own: &NodeName,
    longest: Duration,
) -> Result<PrepareRequest, RequestError> {
    let brought = Brought::new(message.service_account_tokens, message.publish_secrets);
    let identity = identity(message.pod.ok_or(RequestError::NoPod)?)?;
    if identity.node != *own {
        return Err(RequestError::OtherNode { pod: identity.node, own: own.clone() });
    }
    let deadline = match message.deadline_ms {
        0 => longest,
        left => Duration::from_millis(left).min(longest),
    };
    let spec = VolumeSpec {
        volume: volume(&message.volume_id)?,
        identity,
        class: ClassName::parse(message.secret_provider_class)?,
        group: message.mount_group,
        optional: message.optional,
        refresh: message.refresh_ms.map(Duration::from_millis),
        max_stale: message.max_stale_ms.map(Duration::from_millis),
        target_path: message.target_path,
    };
    let shown = Shown {
        generation: Generation::new(message.generation),
        layout: message.layout,
        content: message.content,
        objects: objects(message.objects),
        last: message.last_generation,
        wanted: message.wanted.and_then(wanted),
        older: message.older.into_iter().filter_map(wanted).collect(),
    };
    Ok(PrepareRequest { spec, brought, deadline, shown })
}

fn objects(objects: Vec<message::ObjectVersion>) -> Arc<[ObjectVersion]> {
    let object = |one: message::ObjectVersion| ObjectVersion { id: one.id, version: one.version };
    objects.into_iter().map(object).collect()
}

fn wanted(wanted: message::Wanted) -> Option<Wanted> {
    let message::Wanted { generation, layout, content, objects: its } = wanted;
    let generation = Generation::new(generation)?;
    Some(Wanted { generation, layout, content, objects: objects(its) })
}

/// The pod that a request names.
///
/// # Errors
/// An identifier that breaks its syntax.
pub fn identity(pod: Pod) -> Result<WorkloadIdentity, IdentifierError> {
    Ok(WorkloadIdentity {
        namespace: Namespace::parse(pod.namespace)?,
        pod_name: PodName::parse(pod.name)?,
        pod_uid: PodUid::parse(pod.uid)?,
        service_account: ServiceAccountName::parse(pod.service_account)?,
        node: NodeName::parse(pod.node)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(110);

    fn message() -> Prepare {
        Prepare {
            volume_id: "csi-1".to_owned(),
            pod: Some(Pod {
                namespace: "payments".to_owned(),
                name: "web-0".to_owned(),
                uid: "uid-1".to_owned(),
                service_account: "checkout".to_owned(),
                node: "node-1".to_owned(),
            }),
            secret_provider_class: "payments-db".to_owned(),
            ..Prepare::default()
        }
    }

    fn read_on(node: &str, message: Prepare) -> Result<PrepareRequest, RequestError> {
        read(message, &NodeName::parse(node).unwrap(), LONGEST)
    }

    #[test]
    fn a_deadline_is_the_drivers_but_never_longer_than_ours() {
        for (sent, wanted) in [(0, 110), (5_000, 5), (600_000, 110)] {
            let request = read_on("node-1", Prepare { deadline_ms: sent, ..message() });
            assert_eq!(request.ok().unwrap().deadline, Duration::from_secs(wanted));
        }
    }

    #[test]
    fn a_pod_of_another_node_is_refused() {
        let error = read_on("node-2", message()).err().unwrap();
        assert!(matches!(error, RequestError::OtherNode { .. }));
    }

    #[test]
    fn identifiers_that_climb_are_refused() {
        let error = read_on("node-1", Prepare { volume_id: "../x".to_owned(), ..message() });
        assert!(matches!(error.err(), Some(RequestError::Identifier(_))));
        let error = read_on("node-1", Prepare { pod: None, ..message() });
        assert_eq!(error.err(), Some(RequestError::NoPod));
    }
}
