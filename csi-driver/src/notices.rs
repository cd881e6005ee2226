//! What the author of a pod should know and no call of kubelet's fails for: told through an agent, which can
//! make an event of it.
//!
//! Invariant: nobody waits for it, and nothing depends on it. Repetitions are the agent's to count.

use std::time::Duration;

use sotto_handoff::message::{Notice, Pod};

use crate::driver::Driver;
use crate::volume::VolumeSpec;

/// How long an agent may take to take it.
const NOTICE_DEADLINE: Duration = Duration::from_secs(2);

/// Something else is mounted on the volume's target.
pub(crate) fn foreign_mount(driver: &Driver, spec: &VolumeSpec, fs_type: &str) {
    let message = format!(
        "the volume shows a {fs_type} mount that {} did not make, such as another driver's from before a \
         change-over: it is left as it is until the pod ends; restart the pod to have it served by this \
         driver",
        driver.settings.driver_name
    );
    tell(driver, spec, "ForeignMount", message);
}

/// Every holder of the connection was lost: the mount is dead in containers that don't see the node's mounts.
pub(crate) fn mounted_anew(driver: &Driver, spec: &VolumeSpec) {
    let message = "all processes that held the volume's connection were lost at once, so it is mounted anew: \
                   containers that get \"Transport endpoint is not connected\" must be restarted";
    tell(driver, spec, "MountedAnew", message.to_owned());
}

/// Somebody else than the pod's sidecar came to the pod's socket.
pub(crate) fn handoff_refused(driver: &Driver, spec: &VolumeSpec, why: &dyn std::error::Error) {
    let message = format!(
        "a process that isn't the pod's sidecar tried to be given the pod's secrets, and was refused: {why}"
    );
    tell(driver, spec, "HandoffRefused", message);
}

fn tell(driver: &Driver, spec: &VolumeSpec, reason: &str, message: String) {
    let Some(agent) = driver.broker.current() else { return };
    let pod = Some(pod(spec));
    let notice = Notice { pod, reason: reason.to_owned(), message };
    driver.drain.spawn(async move {
        if let Err(error) = agent.note(notice, NOTICE_DEADLINE).await {
            tracing::debug!(%error, "a notice was not taken");
        }
    });
}

/// The pod as agents are told of it.
pub(crate) fn pod(spec: &VolumeSpec) -> Pod {
    let identity = &spec.identity;
    Pod {
        namespace: identity.namespace.as_str().to_owned(),
        name: identity.pod_name.as_str().to_owned(),
        uid: identity.pod_uid.as_str().to_owned(),
        service_account: identity.service_account.as_str().to_owned(),
        node: identity.node.as_str().to_owned(),
    }
}
