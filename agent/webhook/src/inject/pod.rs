//! A pod as the injection looks at it: borrowed raw JSON, with its lists checked.

use serde_json::{Map, Value};

use crate::fault::Fault;

/// Which list of the pod a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Init,
    Main,
    Ephemeral,
}

impl List {
    const ALL: [Self; 3] = [Self::Init, Self::Main, Self::Ephemeral];

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Main => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

/// One container of any list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    pub(super) list: List,
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
}

impl<'a> Container<'a> {
    /// Where it is, for messages.
    pub(super) fn path(&self) -> String {
        format!("spec.{}[{}]", self.list.key(), self.index)
    }

    /// Its mounts of file systems.
    pub(super) fn mounts(&self) -> &'a [Value] {
        list_of(self.value, "volumeMounts")
    }

    /// Its mounts of block devices.
    pub(super) fn devices(&self) -> &'a [Value] {
        list_of(self.value, "volumeDevices")
    }

    /// Names of the volumes that it has, either way.
    pub(super) fn volume_names(&self) -> impl Iterator<Item = &'a str> {
        self.mounts().iter().chain(self.devices()).filter_map(|mount| mount["name"].as_str())
    }
}

/// The pod's lists.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a Map<String, Value>,
    pub(super) containers: Vec<Container<'a>>,
    pub(super) volumes: &'a [Value],
}

impl<'a> Pod<'a> {
    /// Nothing, with a fault, if it isn't shaped as a pod is.
    pub(super) fn read(pod: &'a Value, faults: &mut Vec<Fault>) -> Option<Self> {
        let Some(spec) = pod.get("spec").and_then(Value::as_object) else {
            faults.push(Fault::new("spec", "missing: this is no pod"));
            return None;
        };
        let before = faults.len();
        let mut containers = Vec::new();
        for list in List::ALL {
            for (index, value) in list_in(spec, list.key(), faults).iter().enumerate() {
                containers.extend(container(list, index, value, faults));
            }
        }
        let volumes = list_in(spec, "volumes", faults);
        (faults.len() == before).then_some(Self { spec, containers, volumes })
    }

    /// The containers of one list.
    pub(super) fn of(&self, list: List) -> impl Iterator<Item = &Container<'a>> {
        self.containers.iter().filter(move |one| one.list == list)
    }

    /// Whether a list is there, be it empty.
    pub(super) fn has(&self, list: &str) -> bool {
        self.spec.get(list).is_some_and(Value::is_array)
    }

    /// The volumes of one name, with their paths.
    pub(super) fn volumes_named(&self, name: &str) -> impl Iterator<Item = (String, &'a Value)> {
        let named = self.volumes.iter().enumerate().filter(move |(_, one)| one["name"] == name);
        named.map(|(index, one)| (format!("spec.volumes[{index}]"), one))
    }
}

fn container<'a>(
    list: List,
    index: usize,
    value: &'a Value,
    faults: &mut Vec<Fault>,
) -> Option<Container<'a>> {
    let Some(name) = value.get("name").and_then(Value::as_str) else {
        faults.push(Fault::new(format!("spec.{}[{index}]", list.key()), "it has no name"));
        return None;
    };
    let container = Container { list, index, name, value };
    for key in ["volumeMounts", "volumeDevices"] {
        if !matches!(value.get(key), None | Some(Value::Null | Value::Array(_))) {
            faults.push(Fault::new(format!("{}.{key}", container.path()), "not a list"));
        }
    }
    Some(container)
}

fn list_in<'a>(spec: &'a Map<String, Value>, key: &str, faults: &mut Vec<Fault>) -> &'a [Value] {
    match spec.get(key) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(list)) => list,
        Some(_) => {
            faults.push(Fault::new(format!("spec.{key}"), "not a list"));
            &[]
        }
    }
}

fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
