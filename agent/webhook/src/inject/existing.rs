//! What of ours is in a pod already: nothing, or all of it, as it must be. Everything else is refused.

use serde_json::Value;

use super::compare::compare;
use super::pod::{Container, List, Pod};
use super::shape::{DRIVER, PRIVATE, RESERVED, SECRETS, SIDECAR, Shape};
use crate::fault::{Fault, quoted};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// None of our names is used.
    Nothing,
    /// The sidecar's place among the init containers; 0 after a fault.
    Sidecar(usize),
}

/// Looks through the pod. With `understood` false the annotations had faults, and what they decide isn't
/// compared.
pub(super) fn look(
    pod: &Pod<'_>,
    shape: &Shape,
    understood: bool,
    faults: &mut Vec<Fault>,
) -> Existing {
    check_drivers(pod, faults);
    if !is_used(pod) {
        return Existing::Nothing;
    }
    check_mounts(pod, faults);
    if understood {
        check_volumes(pod, shape, faults);
    }
    Existing::Sidecar(check_sidecar(pod, shape, understood, faults))
}

fn is_used(pod: &Pod<'_>) -> bool {
    let named = |one: &Container<'_>| {
        one.name == SIDECAR || one.volume_names().any(|name| RESERVED.contains(&name))
    };
    pod.containers.iter().any(named)
        || RESERVED.iter().any(|name| pod.volumes_named(name).next().is_some())
}

/// A second handoff volume would give the application the socket.
fn check_drivers(pod: &Pod<'_>, faults: &mut Vec<Fault>) {
    for (index, volume) in pod.volumes.iter().enumerate() {
        let ours = volume["name"].as_str().is_some_and(|name| RESERVED.contains(&name));
        if volume["csi"]["driver"] == DRIVER && !ours {
            let message = format!("volumes of {DRIVER} are added by the webhook only: remove it");
            faults.push(Fault::new(format!("spec.volumes[{index}]"), message));
        }
    }
}

fn check_mounts(pod: &Pod<'_>, faults: &mut Vec<Fault>) {
    for container in pod.containers.iter().filter(|one| one.name != SIDECAR) {
        let mut private: Vec<_> =
            container.volume_names().filter(|name| PRIVATE.contains(name)).collect();
        private.dedup();
        for name in private {
            let message =
                format!("it mounts {name}, which is the sidecar's alone: remove the mount");
            faults.push(Fault::new(container.path(), message));
        }
        if container.list == List::Ephemeral && container.volume_names().any(|it| it == SECRETS) {
            let message = format!("an ephemeral container can't mount {SECRETS} at creation");
            faults.push(Fault::new(container.path(), message));
        }
    }
}

fn check_volumes(pod: &Pod<'_>, shape: &Shape, faults: &mut Vec<Fault>) {
    for name in RESERVED {
        let expected = shape.volumes.iter().find(|volume| volume["name"] == name);
        let found: Vec<(String, &Value)> = pod.volumes_named(name).collect();
        match (expected, found.as_slice()) {
            (None, []) => {}
            (Some(expected), [(path, actual)]) => compare(path, expected, actual, faults),
            (Some(_), []) => faults.push(half("spec.volumes", &format!("volume {name}"))),
            (_, [.., (path, _)]) => {
                let message = format!("the name {name} is reserved: rename the volume");
                faults.push(Fault::new(path, message));
            }
        }
    }
}

fn check_sidecar(pod: &Pod<'_>, shape: &Shape, understood: bool, faults: &mut Vec<Fault>) -> usize {
    let mut position = None;
    for container in pod.containers.iter().filter(|one| one.name == SIDECAR) {
        if container.list != List::Init || position.is_some() {
            let message = format!("the name {} is reserved: rename the container", quoted(SIDECAR));
            faults.push(Fault::new(container.path(), message));
            continue;
        }
        position = Some(container.index);
        if understood {
            compare(&container.path(), &shape.sidecar, container.value, faults);
        }
    }
    position.unwrap_or_else(|| {
        faults.push(half("spec.initContainers", &format!("init container {SIDECAR}")));
        0
    })
}

fn half(path: &str, what: &str) -> Fault {
    let message = format!(
        "there is no {what}, but other things of the webhook: remove all that is named sotto-*, \
         it is added again as a whole"
    );
    Fault::new(path, message)
}
