//! Pods that can't have a sidecar, or in which it wouldn't be by itself.

use serde_json::Value;

use super::pod::Pod;
use crate::fault::Fault;

const OS_LABEL: &str = "kubernetes.io/os";

pub(super) fn check(pod: &Pod<'_>, faults: &mut Vec<Fault>) {
    let windows = Value::from("windows");
    let selector = pod.spec.get("nodeSelector").and_then(|selector| selector.get(OS_LABEL));
    if selector == Some(&windows) {
        let path = format!("spec.nodeSelector[{OS_LABEL}]");
        faults.push(Fault::new(path, "secrets are served on Linux only"));
    }
    if pod.spec.get("os").and_then(|os| os.get("name")) == Some(&windows) {
        faults.push(Fault::new("spec.os.name", "secrets are served on Linux only"));
    }
    for key in ["shareProcessNamespace", "hostPID"] {
        if pod.spec.get(key) == Some(&Value::Bool(true)) {
            let message = "the sidecar's process and token would be visible to the other \
                           containers: remove it, or use the volume of csi.sotto.dev";
            faults.push(Fault::new(format!("spec.{key}"), message));
        }
    }
}
