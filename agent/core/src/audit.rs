//! The audit record: one JSON line for each decision that Sotto takes about a secret.
//!
//! Invariant: a record names pods, stores and objects, never a value, a token or a response's body.
//!
//! A line is put together here rather than by a serializer's walk over a struct: what all records of a volume say is
//! text already ([`Subject`]), for the line of an open takes time from the processor that its reader is on.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use crate::identity::{StoreName, VolumeId, WorkloadIdentity};
use crate::snapshot::Generation;

/// What was decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl AuditAction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::VerifyToken => "verify-token",
            Self::Fetch => "fetch",
            Self::Resolve => "resolve",
            Self::Handoff => "handoff",
            Self::Release => "release",
        }
    }
}

/// The decision itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The request was granted.
    Allowed,
    /// The request was refused.
    Denied,
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

/// The process that opened a file, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opener {
    /// Effective user id; `u32::MAX` where the kernel doesn't tell (a pod with its own user namespace),
    /// which a record shows as null.
    pub uid: u32,
    /// Effective group id, likewise.
    pub gid: u32,
    /// Process id in the agent's pid namespace; 0 when it can't be seen from there.
    pub pid: u32,
}

/// Whom a volume's records are about, as they say it: pod, volume, store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Fields, each after a comma.
    text: String,
    /// What of it is about pod and volume; the rest is about the store.
    store_at: usize,
}

impl Subject {
    /// A volume of a pod; `None` where the pod itself is meant.
    #[must_use]
    pub fn new(volume: Option<&VolumeId>, identity: &WorkloadIdentity) -> Self {
        let mut subject = Self { text: String::new(), store_at: 0 };
        if let Some(volume) = volume {
            subject.say("volume", volume.as_str());
        }
        let WorkloadIdentity { namespace, pod_name, pod_uid, service_account, node } = identity;
        subject.say("namespace", namespace.as_str());
        subject.say("pod_name", pod_name.as_str());
        subject.say("pod_uid", pod_uid.as_str());
        subject.say("service_account", service_account.as_str());
        subject.say("node", node.as_str());
        subject.store_at = subject.text.len();
        subject
    }

    /// The same at this store, and at no other.
    #[must_use]
    pub fn at(&self, store: &StoreName) -> Self {
        let mut subject = self.clone();
        subject.text.truncate(subject.store_at);
        subject.say("store", store.as_str());
        subject
    }

    fn say(&mut self, field: &str, value: &str) {
        self.text += &format!(r#","{field}":{}"#, Value::from(value));
    }
}

/// What a process opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The object's file name.
    pub object: Arc<str>,
    /// The generation opened.
    pub generation: Generation,
    /// Who opened it.
    pub opener: Opener,
}

/// One line of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditRecord<'a> {
    /// When, RFC 3339 in UTC with milliseconds.
    pub time: SystemTime,
    /// What was decided upon.
    pub action: AuditAction,
    /// How it was decided.
    pub decision: Decision,
    /// Why, where it was denied.
    pub reason: Option<&'a str>,
    /// Whom it is about.
    pub subject: &'a Subject,
    /// For `open`.
    pub opened: Option<&'a Opened>,
}

impl AuditRecord<'_> {
    /// Appends the record to `line`, without a line's end. Fields that don't apply are left out.
    ///
    /// # Errors
    /// Those of a writer; `line` is memory and has none.
    pub fn append_to(&self, line: &mut Vec<u8>) -> io::Result<()> {
        let time = humantime::format_rfc3339_millis(self.time);
        let (action, decision) = (self.action.as_str(), self.decision.as_str());
        write!(line, r#"{{"time":"{time}","action":"{action}","decision":"{decision}""#)?;
        if let Some(reason) = self.reason {
            line.extend_from_slice(br#","reason":"#);
            serde_json::to_writer(&mut *line, reason)?;
        }
        line.extend_from_slice(self.subject.text.as_bytes());
        if let Some(Opened { object, generation, opener }) = self.opened {
            line.extend_from_slice(br#","object":"#);
            serde_json::to_writer(&mut *line, &**object)?;
            write!(line, r#","generation":{}"#, generation.get())?;
            for (field, id) in [("uid", opener.uid), ("gid", opener.gid)] {
                match id {
                    u32::MAX => write!(line, r#","{field}":null"#)?,
                    id => write!(line, r#","{field}":{id}"#)?,
                }
            }
            write!(line, r#","pid":{}"#, opener.pid)?;
        }
        line.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::{Duration, UNIX_EPOCH};

    fn pod() -> WorkloadIdentity {
        WorkloadIdentity {
            namespace: Namespace::parse("payments").unwrap(),
            pod_name: PodName::parse("web-0").unwrap(),
            pod_uid: PodUid::parse("u-1").unwrap(),
            service_account: ServiceAccountName::parse("checkout").unwrap(),
            node: NodeName::parse("node-1").unwrap(),
        }
    }

    fn said(record: &AuditRecord<'_>) -> Value {
        let mut line = Vec::new();
        record.append_to(&mut line).unwrap();
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_record_is_one_flat_json_object() {
        let subject = Subject::new(Some(&VolumeId::parse("csi-1").unwrap()), &pod());
        let opener = Opener { uid: 1000, gid: u32::MAX, pid: 7 };
        let generation = Generation::new(1).unwrap();
        let record = AuditRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_500),
            action: AuditAction::Open,
            decision: Decision::Allowed,
            reason: None,
            subject: &subject,
            opened: Some(&Opened { object: "db-password".into(), generation, opener }),
        };
        assert_eq!(
            said(&record),
            json!({
                "time": "1970-01-01T00:00:01.500Z", "action": "open", "decision": "allowed",
                "volume": "csi-1", "namespace": "payments", "pod_name": "web-0", "pod_uid": "u-1",
                "service_account": "checkout", "node": "node-1", "object": "db-password",
                "generation": 1, "uid": 1000, "gid": null, "pid": 7
            })
        );
    }

    #[test]
    fn the_store_that_is_said_is_the_last_one() {
        let store = |name| StoreName::parse(name).unwrap();
        let subject = Subject::new(None, &pod()).at(&store("former")).at(&store("main"));
        let record = AuditRecord {
            time: UNIX_EPOCH,
            action: AuditAction::VerifyToken,
            decision: Decision::Denied,
            reason: Some("expired"),
            subject: &subject,
            opened: None,
        };
        assert_eq!(
            said(&record),
            json!({
                "time": "1970-01-01T00:00:00.000Z", "action": "verify-token", "decision": "denied",
                "reason": "expired", "namespace": "payments", "pod_name": "web-0", "pod_uid": "u-1",
                "service_account": "checkout", "node": "node-1", "store": "main"
            })
        );
    }

    proptest! {
        #[test]
        fn no_name_and_no_reason_leaves_its_field(
            object in any::<String>(), reason in any::<String>(),
        ) {
            let subject = Subject::new(None, &pod());
            let opener = Opener { uid: 0, gid: 0, pid: 0 };
            let record = said(&AuditRecord {
                time: UNIX_EPOCH,
                action: AuditAction::Fetch,
                decision: Decision::Denied,
                reason: Some(&reason),
                subject: &subject,
                opened: Some(&Opened {
                    object: object.as_str().into(),
                    generation: Generation::FIRST,
                    opener,
                }),
            });
            prop_assert_eq!(&record["object"], &Value::from(object));
            prop_assert_eq!(&record["reason"], &Value::from(reason));
            prop_assert_eq!(&record["node"], "node-1");
        }
    }
}
