//! A SecretProviderClassPodStatus as the reference driver writes it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;
use sotto_core::fnv::fnv1a;
use sotto_core::identity::NodeName;

use super::{PodStatus, StatusKey};
use crate::calls::APPLY_STATUS;
use crate::text;

/// The label by which the reference driver finds the statuses of its node.
const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";
const KIND: &str = "SecretProviderClassPodStatus";
/// Longest name of an object.
const LONGEST_NAME_BYTES: usize = 253;
/// Longest value of a label.
const LONGEST_LABEL_BYTES: usize = 63;
/// Longest id or version that is shown.
const LONGEST_TEXT_BYTES: usize = 512;
/// Longest target path that is shown.
const LONGEST_PATH_BYTES: usize = 4096;

pub(super) fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(APPLY_STATUS.group, "v1", KIND);
    ApiResource::from_gvk_with_plural(&kind, APPLY_STATUS.resource)
}

/// `<pod>-<namespace>-<class>`; if that is too long, its beginning and a hash of the whole.
pub(super) fn name(key: &StatusKey) -> String {
    let whole = format!("{}-{}-{}", key.pod_name, key.namespace, key.class);
    if whole.len() <= LONGEST_NAME_BYTES {
        return whole;
    }
    let hash = fnv1a(whole.bytes());
    let kept = whole[..LONGEST_NAME_BYTES - 17].trim_end_matches(['.', '-']);
    format!("{kept}-{hash:016x}")
}

pub(super) fn object(status: &PodStatus, node: &NodeName) -> DynamicObject {
    let mut object = DynamicObject::new(&name(&status.key), &resource())
        .within(status.key.namespace.as_str())
        .data(json!({"status": {
            "podName": status.key.pod_name,
            "secretProviderClassName": status.key.class,
            "mounted": status.mounted,
            "targetPath": text::one_line(&status.target_path, LONGEST_PATH_BYTES),
            "objects": objects(status),
        }}));
    if node.as_str().len() <= LONGEST_LABEL_BYTES {
        let label = (NODE_LABEL.to_owned(), node.to_string());
        object.metadata.labels = Some(BTreeMap::from([label]));
    }
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: status.key.pod_name.to_string(),
        uid: status.pod_uid.to_string(),
        ..OwnerReference::default()
    }]);
    object
}

fn objects(status: &PodStatus) -> Vec<serde_json::Value> {
    let mut objects: Vec<_> = status.objects.iter().collect();
    objects.sort();
    let shown = |text: &str| text::one_line(text, LONGEST_TEXT_BYTES);
    objects
        .into_iter()
        .map(|one| json!({"id": shown(&one.id), "version": shown(&one.version)}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::ObjectVersion;
    use super::*;
    use sotto_core::identity::{ClassName, Namespace, PodName, PodUid};

    fn status(pod: &str) -> PodStatus {
        let version = |id: &str, version: &str| ObjectVersion {
            id: id.to_owned(),
            version: version.to_owned(),
        };
        PodStatus {
            key: StatusKey {
                namespace: Namespace::parse("shop").unwrap(),
                pod_name: PodName::parse(pod).unwrap(),
                class: ClassName::parse("db").unwrap(),
            },
            pod_uid: PodUid::parse("uid-0").unwrap(),
            mounted: true,
            target_path: "/var/lib/kubelet/pods/uid-0/mount".to_owned(),
            objects: vec![version("z", "2"), version("a", "1\n")],
        }
    }

    #[test]
    fn a_status_has_the_reference_drivers_fields_sorted_by_id() {
        let node = NodeName::parse("node-1").unwrap();
        let written = serde_json::to_value(object(&status("web-0"), &node)).unwrap();
        let expected = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClassPodStatus",
            "metadata": {
                "name": "web-0-shop-db",
                "namespace": "shop",
                "labels": {"internal.secrets-store.csi.k8s.io/node-name": "node-1"},
                "ownerReferences":
                    [{"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "uid-0"}],
            },
            "status": {
                "podName": "web-0", "secretProviderClassName": "db", "mounted": true,
                "targetPath": "/var/lib/kubelet/pods/uid-0/mount",
                "objects": [{"id": "a", "version": "1"}, {"id": "z", "version": "2"}],
            },
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn a_name_that_would_be_too_long_is_cut_and_stays_distinct() {
        let one = name(&status(&"a".repeat(253)).key);
        let other = name(&StatusKey {
            class: ClassName::parse("other").unwrap(),
            ..status(&"a".repeat(253)).key
        });
        assert_eq!(one.len(), 253);
        // The same in every build: the next agent must find what this one made.
        assert!(one.ends_with("-aebd8126c5053770"), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn a_node_whose_name_is_no_label_goes_without() {
        let node = NodeName::parse("n".repeat(64)).unwrap();
        assert_eq!(object(&status("web-0"), &node).metadata.labels, None);
    }
}
