//! Whether a pod is the one that the webhook makes: with Sotto's sidecar, which alone can reach the pod's socket.
//!
//! Invariant: what is looked at is the API server's pod, never what a request says of it. A field that is absent
//! is what Kubernetes takes it for. Whoever may write pods may write one with a sidecar of the same shape: the
//! admission policy and `sidecar.images` say which image it runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sotto_core::attributes::{HANDOFF, ROLE};

/// The sidecar's name.
pub const SIDECAR: &str = "sotto-agent";
/// The name that the webhook gives the handoff volume.
const HANDOFF_VOLUME: &str = "sotto-handoff";
/// The sidecar's user.
const USER: i64 = 65532;

/// The parts of a pod's spec that this is about; nothing else is kept.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) host_users: Option<bool>,
    #[serde(default)]
    init_containers: Vec<Container>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    ephemeral_containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
    security_context: Option<SecurityContext>,
    #[serde(rename = "hostPID", default)]
    host_pid: bool,
    share_process_namespace: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
    restart_policy: Option<String>,
    /// Of an ephemeral container: whose processes it sees.
    target_container_name: Option<String>,
    security_context: Option<SecurityContext>,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Mount {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Volume {
    name: String,
    csi: Option<Csi>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Csi {
    #[serde(default)]
    volume_attributes: BTreeMap<String, String>,
}

/// Why a pod is given no sidecar's volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectionFault {
    /// Not injected, or injected with something else.
    #[error(
        "it has no init container sotto-agent: label the pod sotto.dev/inject: \"true\" and create it anew"
    )]
    NoSidecar,
    /// Ends before the application begins.
    #[error("its sotto-agent is not a native sidecar: it needs restartPolicy Always")]
    NotNative,
    /// Another user.
    #[error("its sotto-agent doesn't run as uid {USER} (runAsUser)")]
    User,
    /// Nobody could serve it.
    #[error("its sotto-agent doesn't mount the handoff volume")]
    NoHandoff,
    /// Somebody else reaches the pod's socket.
    #[error("its container {0:?} mounts the handoff volume, which is the sidecar's alone")]
    Handoff(String),
    /// The sidecar's memory is in reach of the application's user.
    #[error("it has shareProcessNamespace: every container sees the sidecar's processes")]
    SharedProcesses,
    /// Likewise.
    #[error("it has hostPID: it sees every process of the node")]
    HostPid,
    /// Not the administrator's image.
    #[error("its sotto-agent has image {0:?}, which is not in sotto-node's sidecar.images")]
    Image(String),
}

impl Spec {
    /// All that is wrong; nothing for a pod as the webhook makes it. Without `images` every image passes.
    pub(super) fn injection_faults(&self, images: &[String]) -> Vec<InjectionFault> {
        let mut faults = Vec::new();
        if self.share_process_namespace == Some(true) {
            faults.push(InjectionFault::SharedProcesses);
        }
        if self.host_pid {
            faults.push(InjectionFault::HostPid);
        }
        let joins = |it: &Container| it.target_container_name.as_deref() == Some(SIDECAR);
        if self.ephemeral_containers.iter().any(joins) {
            faults.push(InjectionFault::SharedProcesses);
        }
        let handoff = self.handoff_volumes();
        let reaches = |container: &Container| {
            container.volume_mounts.iter().any(|mount| handoff.contains(mount.name.as_str()))
        };
        let is_sidecar = |container: &&Container| container.name == SIDECAR;
        let others = self.init_containers.iter().filter(|it| !is_sidecar(it));
        let others = others.chain(&self.containers).chain(&self.ephemeral_containers);
        let reaching = others.filter(|container| reaches(container));
        faults.extend(reaching.map(|it| InjectionFault::Handoff(printable(&it.name))));
        // Names are unique within a pod.
        match self.init_containers.iter().find(is_sidecar) {
            None => faults.push(InjectionFault::NoSidecar),
            Some(sidecar) => {
                faults.extend((!reaches(sidecar)).then_some(InjectionFault::NoHandoff));
                faults.extend(self.sidecar_faults(sidecar, images));
            }
        }
        faults
    }

    fn sidecar_faults<'a>(
        &self,
        sidecar: &'a Container,
        images: &'a [String],
    ) -> impl Iterator<Item = InjectionFault> + use<'a> {
        let user = |context: &Option<SecurityContext>| context.as_ref()?.run_as_user;
        let user = user(&sidecar.security_context).or_else(|| user(&self.security_context));
        let is_native = sidecar.restart_policy.as_deref() == Some("Always");
        let is_listed = images.is_empty() || images.contains(&sidecar.image);
        let native = (!is_native).then_some(InjectionFault::NotNative);
        let user = (user != Some(USER)).then_some(InjectionFault::User);
        let image = (!is_listed).then(|| InjectionFault::Image(printable(&sidecar.image)));
        native.into_iter().chain(user).chain(image)
    }

    /// By what they are, since a pod's author chooses the names.
    fn handoff_volumes(&self) -> BTreeSet<&str> {
        let is_handoff = |volume: &&Volume| {
            let role = volume.csi.as_ref().and_then(|csi| csi.volume_attributes.get(ROLE));
            volume.name == HANDOFF_VOLUME || role.is_some_and(|role| role == HANDOFF)
        };
        self.volumes.iter().filter(is_handoff).map(|volume| volume.name.as_str()).collect()
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn injected() -> Value {
        json!({
            "initContainers": [
                {"name": "istio-proxy", "restartPolicy": "Always"},
                {
                    "name": SIDECAR, "image": "sotto/agent:1", "restartPolicy": "Always",
                    "securityContext": {"runAsUser": 65532},
                    "volumeMounts": [{"name": "h"}, {"name": "sotto-token"}],
                },
            ],
            "containers": [{"name": "web", "volumeMounts": [{"name": "sotto-secrets"}]}],
            "ephemeralContainers": [],
            "volumes": [
                {"name": "sotto-secrets", "csi": {"driver": "d", "volumeAttributes": {}}},
                {"name": "h", "csi": {"driver": "d", "volumeAttributes": {ROLE: HANDOFF}}},
                {"name": "scratch", "emptyDir": {}},
            ],
        })
    }

    fn faults_of(spec: Value, images: &[&str]) -> Vec<InjectionFault> {
        let images: Vec<_> = images.iter().map(|image| (*image).to_owned()).collect();
        serde_json::from_value::<Spec>(spec).unwrap().injection_faults(&images)
    }

    fn with(path: &str, value: Value) -> Vec<InjectionFault> {
        let mut spec = injected();
        let (parent, key) = path.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        faults_of(spec, &[])
    }

    #[test]
    fn a_pod_as_the_webhook_makes_it_is_accepted() {
        assert_eq!(faults_of(injected(), &[]), []);
        assert_eq!(faults_of(injected(), &["sotto/agent:0", "sotto/agent:1"]), []);
        let context = json!({"runAsUser": 65532});
        let mut of_pod = injected();
        of_pod["initContainers"][1]["securityContext"] = json!({});
        of_pod["securityContext"] = context;
        assert_eq!(faults_of(of_pod, &[]), []);
    }

    #[test]
    fn every_way_to_another_pod_is_refused() {
        use InjectionFault::{
            Handoff, HostPid, NoHandoff, NoSidecar, NotNative, SharedProcesses, User,
        };
        let mount = json!([{"name": "h"}]);
        let debug = json!([{"name": "debug", "volumeMounts": [{"name": "h"}]}]);
        let joins = json!([{"name": "debug", "targetContainerName": "sotto-agent"}]);
        let cases = [
            ("/ephemeralContainers", joins, vec![SharedProcesses]),
            (
                "/initContainers/1/name",
                json!("agent"),
                vec![Handoff("agent".to_owned()), NoSidecar],
            ),
            ("/initContainers/1/restartPolicy", Value::Null, vec![NotNative]),
            ("/initContainers/1/securityContext", Value::Null, vec![User]),
            ("/initContainers/1/securityContext/runAsUser", json!(0), vec![User]),
            ("/initContainers/1/volumeMounts", json!([]), vec![NoHandoff]),
            ("/containers/0/volumeMounts", mount.clone(), vec![Handoff("web".to_owned())]),
            ("/initContainers/0/volumeMounts", mount, vec![Handoff("istio-proxy".to_owned())]),
            ("/ephemeralContainers", debug, vec![Handoff("debug".to_owned())]),
            ("/shareProcessNamespace", json!(true), vec![SharedProcesses]),
            ("/hostPID", json!(true), vec![HostPid]),
        ];
        for (path, value, faults) in cases {
            assert_eq!(with(path, value), faults, "{path}");
        }
        let image = InjectionFault::Image("sotto/agent:1".to_owned());
        assert_eq!(faults_of(injected(), &["sotto/agent:2"]), [image]);
        assert_eq!(faults_of(json!({}), &[]), [NoSidecar]);
    }
}
