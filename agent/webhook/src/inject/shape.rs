//! What an injected pod has: the sidecar, its volumes, the mount of an application's container.
//!
//! Invariants: Pod Security level restricted; every field that the API server would fill with a default is
//! written here, so that a pod that comes back can be compared; the handoff volume, the token and the client
//! certificate are mounted by the sidecar alone; the sidecar doesn't mount the secrets.

use serde_json::{Value, json};
use sotto_core::attributes::{MAX_STALE, REFRESH, SECRET_PROVIDER_CLASS};

use super::annotations::Request;
use crate::settings::Settings;

/// The sidecar's name.
pub const SIDECAR: &str = "sotto-agent";
/// The driver of both volumes; kubelet sends it no token.
pub const DRIVER: &str = "sidecar.csi.sotto.dev";
/// Attribute of the handoff volume.
const ROLE: &str = "sotto.dev/role";
/// The volume that the application reads.
pub(super) const SECRETS: &str = "sotto-secrets";
const HANDOFF: &str = "sotto-handoff";
const TOKEN: &str = "sotto-token";
const CERTIFICATE: &str = "sotto-client-certificate";
/// Names of volumes that nobody else may use.
pub(super) const RESERVED: [&str; 4] = [SECRETS, HANDOFF, TOKEN, CERTIFICATE];
/// Those that only the sidecar mounts.
pub(super) const PRIVATE: [&str; 3] = [HANDOFF, TOKEN, CERTIFICATE];

/// Where the driver's socket is.
const HANDOFF_PATH: &str = "/run/sotto";
/// Where the pod's token is. At this path, since Kubernetes mounts its own token, that of its API, into every
/// container that has nothing there, one that a webhook added included.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CERTIFICATE_PATH: &str = "/etc/sotto/tls";
/// The shortest life that Kubernetes gives a token.
const TOKEN_SECONDS: u32 = 600;
/// uid and gid of the sidecar.
const USER: u32 = 65532;

/// All that is added to one pod.
pub(super) struct Shape {
    pub(super) sidecar: Value,
    pub(super) volumes: Vec<Value>,
    pub(super) mount: Value,
}

impl Shape {
    pub(super) fn new(request: &Request, settings: &Settings) -> Self {
        Self {
            sidecar: sidecar(request, settings),
            volumes: volumes(request, settings),
            mount: json!({"name": SECRETS, "mountPath": request.mount_path, "readOnly": true}),
        }
    }
}

fn sidecar(request: &Request, settings: &Settings) -> Value {
    let mut arguments = vec![
        format!("--handoff={HANDOFF_PATH}"),
        format!("--token={TOKEN_PATH}/token"),
        format!("--log={}", settings.log),
    ];
    let mut mounts = vec![
        json!({"name": HANDOFF, "mountPath": HANDOFF_PATH, "readOnly": true}),
        json!({"name": TOKEN, "mountPath": TOKEN_PATH, "readOnly": true}),
    ];
    if settings.client_certificate.is_some() {
        arguments.push(format!("--client-certificate={CERTIFICATE_PATH}/tls.crt"));
        arguments.push(format!("--client-key={CERTIFICATE_PATH}/tls.key"));
        mounts.push(json!({"name": CERTIFICATE, "mountPath": CERTIFICATE_PATH, "readOnly": true}));
    }
    json!({
        "name": SIDECAR,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/sotto-agent"],
        "args": arguments,
        "restartPolicy": "Always",
        "securityContext": restricted(),
        // No CPU limit: throttling would delay reads.
        "resources": {
            "requests": {
                "cpu": request.cpu_request.to_string(),
                "memory": settings.memory.request.to_string(),
            },
            "limits": {"memory": request.memory_limit.to_string()},
        },
        // Later containers, and so the first touch of the secrets, wait for it.
        "startupProbe": startup_probe(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    })
}

fn restricted() -> Value {
    json!({
        "runAsUser": USER,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

fn startup_probe() -> Value {
    json!({
        "exec": {"command": ["/sotto-agent", "probe"]},
        "periodSeconds": 1,
        "timeoutSeconds": 3,
        "successThreshold": 1,
        "failureThreshold": 120,
    })
}

fn volumes(request: &Request, settings: &Settings) -> Vec<Value> {
    let mut attributes = json!({SECRET_PROVIDER_CLASS: request.class});
    for (key, value) in [(REFRESH, &request.refresh), (MAX_STALE, &request.max_stale)] {
        if let Some(value) = value {
            attributes[key] = json!(value);
        }
    }
    let token = json!({"serviceAccountToken": {
        "audience": settings.audience.as_str(),
        "expirationSeconds": TOKEN_SECONDS,
        "path": "token",
    }});
    let mut volumes = vec![
        csi(SECRETS, attributes),
        csi(HANDOFF, json!({ROLE: "handoff"})),
        json!({"name": TOKEN, "projected": {"defaultMode": 0o644, "sources": [token]}}),
    ];
    if let Some(source) = &settings.client_certificate {
        let mut volume = Value::Object(source.clone());
        volume["name"] = json!(CERTIFICATE);
        volumes.push(volume);
    }
    volumes
}

fn csi(name: &str, attributes: Value) -> Value {
    json!({
        "name": name,
        "csi": {"driver": DRIVER, "readOnly": true, "volumeAttributes": attributes},
    })
}
