//! The audit record: one JSON line for each decision that Sotto takes about a secret.
//!
//! Invariant: a record names pods, stores and objects, never a value, a token or a response's body.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::identity::{StoreName, VolumeId, WorkloadIdentity};
use crate::snapshot::Generation;

/// What was decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditAction {
    /// A process opened a file of a volume.
    Open,
    /// A pod's token was compared with the volume's pod.
    VerifyToken,
    /// A pod's secrets were asked for at a store.
    Fetch,
    /// A sidecar's volume was given its class and its store.
    Resolve,
    /// A process asked for a pod's connection at the pod's handoff socket.
    Handoff,
    /// A volume ended and its store token was revoked.
    Release,
}

/// The decision itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The request was granted.
    Allowed,
    /// The request was refused.
    Denied,
}

/// The process that opened a file, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Opener {
    /// Effective user id; `u32::MAX` where the kernel doesn't tell (a pod with its own user namespace),
    /// which a record shows as null.
    #[serde(serialize_with = "known")]
    pub uid: u32,
    /// Effective group id, likewise.
    #[serde(serialize_with = "known")]
    pub gid: u32,
    /// Process id in the agent's pid namespace; 0 when it can't be seen from there.
    pub pid: u32,
}

fn known<S: Serializer>(id: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    (*id != u32::MAX).then_some(*id).serialize(serializer)
}

/// One line of the audit log. Serialized as it stands; fields that don't apply are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AuditRecord<'a> {
    /// When, RFC 3339 in UTC with milliseconds.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// What was decided upon.
    pub action: AuditAction,
    /// How it was decided.
    pub decision: Decision,
    /// Why, where it was denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The volume; none where the pod itself is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<&'a VolumeId>,
    /// The pod that the volume belongs to.
    #[serde(flatten)]
    pub identity: &'a WorkloadIdentity,
    /// The store, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<&'a StoreName>,
    /// The object's file name, for `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<&'a str>,
    /// The generation opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Who opened it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub opener: Option<Opener>,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_record_is_one_flat_json_object() {
        let record = AuditRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_500),
            action: AuditAction::Open,
            decision: Decision::Allowed,
            reason: None,
            volume: Some(&VolumeId::parse("csi-1").unwrap()),
            identity: &WorkloadIdentity {
                namespace: Namespace::parse("payments").unwrap(),
                pod_name: PodName::parse("web-0").unwrap(),
                pod_uid: PodUid::parse("u-1").unwrap(),
                service_account: ServiceAccountName::parse("checkout").unwrap(),
                node: NodeName::parse("node-1").unwrap(),
            },
            store: None,
            object: Some("db-password"),
            generation: Generation::new(1),
            opener: Some(Opener { uid: 1000, gid: 1000, pid: 7 }),
        };
        let json = serde_json::to_value(record).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "time": "1970-01-01T00:00:01.500Z", "action": "open", "decision": "allowed",
                "volume": "csi-1", "namespace": "payments", "pod_name": "web-0", "pod_uid": "u-1",
                "service_account": "checkout", "node": "node-1", "object": "db-password",
                "generation": 1, "uid": 1000, "gid": 1000, "pid": 7
            })
        );
    }
}
