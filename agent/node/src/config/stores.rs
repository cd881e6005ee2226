//! `stores` and `defaults`.

use serde::Deserialize;
use serde_json::{Value, json};
use sotto_core::identity::StoreName;
use sotto_store::Stores;
use sotto_store::config::{
    Fault as StoreFault, PROVIDER_KIND, ProviderConfig, StoreConfig, StoreEntry,
};

use super::Fault;
use super::section::{self, Section};

/// Keys of a store without a default.
const REQUIRED: &[&str] =
    &["name", "kind", "address", "ca", "auth", "auth.method", "auth.audience", "allow"];
/// The same for a store of kind provider.
const REQUIRED_OF_PROVIDER: &[&str] = &["name", "audience", "allow"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    store: Option<StoreName>,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<Stores> {
    let before = faults.len();
    let defaults = root.take("defaults").unwrap_or_else(|| json!({}));
    let defaults = section::read::<Defaults>(defaults, "defaults", &[], faults);
    let entries = match root.take("stores") {
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            faults.push(Fault::new("stores", "not a list: begin each store with a dash"));
            return None;
        }
        None => Vec::new(),
    };
    let mut names = Vec::new();
    let mut configs = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        names.push(entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned());
        let at = format!("stores[{index}]");
        configs.push(read_entry(entry, &at, faults));
    }
    let default = defaults.and_then(|defaults| defaults.store);
    if faults.len() == before {
        let configs = configs.into_iter().flatten().collect();
        return Stores::open(configs, default)
            .map_err(|found| faults.extend(translate(found)))
            .ok();
    }
    // One that can't be read must not hide what is wrong with the others.
    for (index, config) in configs.iter().enumerate() {
        let found = config.as_ref().map(StoreEntry::validate).unwrap_or_default();
        let within = |fault: StoreFault| fault.within(&format!("stores[{index}]"));
        faults.extend(translate(found.into_iter().map(within).collect()));
    }
    if let Some(name) = default.filter(|name| !names.iter().any(|known| known == name.as_str())) {
        faults.push(Fault::new("defaults.store", format!("no store is named {name}")));
    }
    None
}

fn read_entry(entry: Value, at: &str, faults: &mut Vec<Fault>) -> Option<StoreEntry> {
    if entry.get("kind").and_then(Value::as_str) == Some(PROVIDER_KIND) {
        section::read::<ProviderConfig>(entry, at, REQUIRED_OF_PROVIDER, faults).map(Into::into)
    } else {
        section::read::<StoreConfig>(entry, at, REQUIRED, faults).map(Into::into)
    }
}

fn translate(found: Vec<StoreFault>) -> impl Iterator<Item = Fault> {
    found.into_iter().map(|fault| Fault { path: fault.path, message: fault.message })
}
