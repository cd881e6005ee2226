//! From a pod and the administrator's settings to a patch, to nothing to do, or to a refusal with all faults.
//!
//! Invariants: pure; the pod is raw JSON, so fields that nobody here knows stay as they are; the patch only
//! adds; on its own output it is empty; a pod that uses our names in any other way is refused, never mended.
//! What a pod's author writes ends up in the class's name, the mount path, the volume's attributes and the
//! resources, and nowhere else. Called by [`crate::review`] and [`crate::render`].

mod annotations;
mod compare;
mod existing;
mod mount_path;
mod platform;
mod pod;
mod selection;
mod shape;

use serde_json::Value;

use crate::fault::{Fault, Faults, quoted};
use crate::patch::{self, Operation};
use crate::settings::Settings;
use existing::Existing;
use pod::{List, Pod};
use shape::Shape;

pub use shape::{DRIVER, SIDECAR};

/// The label by which a pod asks for the sidecar. A label, since a webhook can select by nothing else.
pub const LABEL: &str = "sotto.dev/inject";

/// What has to be added to `pod` (a pod, or the template of one). Nothing if it doesn't ask, or has it all.
///
/// # Errors
/// Everything that is wrong with the pod.
pub fn inject(pod: &Value, settings: &Settings) -> Result<Vec<Operation>, Faults> {
    let mut faults = Vec::new();
    match asks(pod) {
        Ok(false) => return Ok(Vec::new()),
        Ok(true) => {}
        Err(fault) => faults.push(fault),
    }
    let request = annotations::read(pod, settings, &mut faults);
    let understood = faults.is_empty();
    let operations = match Pod::read(pod, &mut faults) {
        Some(pod) => {
            platform::check(&pod, &mut faults);
            let shape = Shape::new(&request, settings);
            plan(&pod, &request, &shape, settings, understood, &mut faults)
        }
        None => Vec::new(),
    };
    if faults.is_empty() { Ok(operations) } else { Err(Faults(faults)) }
}

fn asks(pod: &Value) -> Result<bool, Fault> {
    match pod.pointer("/metadata/labels").and_then(|labels| labels.get(LABEL)) {
        None => Ok(false),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(other) => {
            let found = other.as_str().map_or_else(|| other.to_string(), quoted);
            let message = format!("it is {found}: write \"true\", or remove the label");
            Err(Fault::new(format!("metadata.labels[{LABEL}]"), message))
        }
    }
}

fn plan(
    pod: &Pod<'_>,
    request: &annotations::Request,
    shape: &Shape,
    settings: &Settings,
    understood: bool,
    faults: &mut Vec<Fault>,
) -> Vec<Operation> {
    let existing = existing::look(pod, shape, understood, faults);
    let position = match existing {
        Existing::Sidecar(position) => position,
        Existing::Nothing => position(pod),
    };
    let chosen = selection::choose(pod, request, position, settings, faults);
    // Mounts first: an init container's index is its author's until the sidecar is added.
    let mut operations = selection::mounts(pod, &chosen, &shape.mount, faults);
    if existing == Existing::Nothing {
        let exists = pod.has("initContainers");
        let sidecar = vec![shape.sidecar.clone()];
        operations.extend(patch::add_to_list(
            "/spec/initContainers",
            exists,
            Some(position),
            sidecar,
        ));
        let exists = pod.has("volumes");
        operations.extend(patch::add_to_list("/spec/volumes", exists, None, shape.volumes.clone()));
    }
    operations
}

/// Names of native sidecars that carry the pod's traffic: without them the store can't be reached.
const MESHES: &[&str] = &["istio-proxy", "linkerd-proxy"];

/// First, so that every later init container can read secrets; but after a mesh's native sidecar.
fn position(pod: &Pod<'_>) -> usize {
    let carries = |one: &&pod::Container<'_>| {
        MESHES.contains(&one.name) && one.value["restartPolicy"] == "Always"
    };
    pod.of(List::Init).filter(carries).last().map_or(0, |one| one.index + 1)
}

#[cfg(test)]
mod tests;
