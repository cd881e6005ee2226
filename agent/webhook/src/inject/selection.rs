//! Which containers get the secrets, and whether each of them can.

use serde_json::Value;

use super::annotations::{self, Request};
use super::mount_path;
use super::pod::{Container, List, Pod};
use super::shape::{SECRETS, SIDECAR};
use crate::fault::{Fault, quoted};
use crate::patch::{self, Operation};
use crate::settings::Settings;

/// The containers that get the secrets: those that the pod names, or all that start after the sidecar but
/// the infrastructure that other webhooks add. `position` is the sidecar's, among the init containers as
/// they are now.
pub(super) fn choose<'p, 'a>(
    pod: &'p Pod<'a>,
    request: &Request,
    position: usize,
    settings: &Settings,
    faults: &mut Vec<Fault>,
) -> Vec<&'p Container<'a>> {
    let is_early = |one: &Container<'_>| one.list == List::Init && one.index < position;
    let candidates =
        pod.containers.iter().filter(|one| one.list != List::Ephemeral && one.name != SIDECAR);
    let chosen: Vec<_> = match &request.containers {
        None => candidates
            .filter(|one| {
                !is_early(one) && !settings.skip_containers.iter().any(|it| it == one.name)
            })
            .collect(),
        Some(names) => {
            check_names(pod, names, is_early, faults);
            candidates.filter(|one| names.iter().any(|name| name == one.name)).collect()
        }
    };
    if chosen.is_empty() {
        faults.push(Fault::new("spec.containers", "no container gets the secrets"));
    }
    chosen
}

fn check_names(
    pod: &Pod<'_>,
    names: &[String],
    is_early: impl Fn(&Container<'_>) -> bool,
    faults: &mut Vec<Fault>,
) {
    for name in names {
        let container = pod.containers.iter().find(|one| one.name == name);
        let complaint = match container {
            _ if name == SIDECAR => "is the sidecar",
            None => "is no container of the pod",
            Some(one) if one.list == List::Ephemeral => "is an ephemeral container",
            Some(one) if is_early(one) => "starts before the sidecar",
            Some(_) => continue,
        };
        let message = format!("{} {complaint}", quoted(name));
        faults.push(Fault::new(annotations::containers_path(), message));
    }
}

/// What has to be added to the chosen containers.
pub(super) fn mounts(
    pod: &Pod<'_>,
    chosen: &[&Container<'_>],
    mount: &Value,
    faults: &mut Vec<Fault>,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    for container in &pod.containers {
        let is_chosen =
            chosen.iter().any(|one| one.list == container.list && one.index == container.index);
        let found: Vec<_> =
            container.mounts().iter().filter(|one| one["name"] == SECRETS).collect();
        match (is_chosen, found.as_slice()) {
            (true, []) => operations.extend(added(container, mount, faults)),
            (true, [one]) if same(one, mount) => {}
            (false, []) => {}
            _ => {
                let message = format!(
                    "it mounts {SECRETS} in a way of its own: remove the mount, the webhook adds it \
                     where {} says",
                    annotations::containers_path()
                );
                faults.push(Fault::new(container.path(), message));
            }
        }
    }
    operations
}

fn same(one: &Value, mount: &Value) -> bool {
    one.as_object().is_some_and(|one| {
        let one = one.iter().filter(|(_, value)| !value.is_null());
        mount.as_object().is_some_and(|mount| one.eq(mount.iter()))
    })
}

fn added(container: &Container<'_>, mount: &Value, faults: &mut Vec<Fault>) -> Vec<Operation> {
    let path = mount["mountPath"].as_str().unwrap_or_default();
    let mounted = container.mounts().iter().map(|one| &one["mountPath"]);
    let devices = container.devices().iter().map(|one| &one["devicePath"]);
    let taken = mounted.chain(devices).filter_map(Value::as_str);
    for other in taken.filter(|other| mount_path::hides(path, other)) {
        let message = format!(
            "it has {} mounted where the secrets come: choose another {}",
            quoted(other),
            annotations::path("sotto.dev/mount-path")
        );
        faults.push(Fault::new(container.path(), message));
    }
    let list = format!("/spec/{}/{}/volumeMounts", container.list.key(), container.index);
    let exists = container.value["volumeMounts"].is_array();
    patch::add_to_list(&list, exists, None, vec![mount.clone()])
}
