//! One YAML file of manifests: SecretProviderClasses, and other objects that are left alone.

use std::collections::BTreeMap;

use serde_json::Value;
use sotto_core::class::{API_VERSION, KIND, SecretProviderClass};
use sotto_core::identity::{ClassName, Namespace};

/// A manifest with a name, whether the class can be used or not.
pub(super) struct Manifest {
    pub(super) namespace: Namespace,
    pub(super) name: ClassName,
    pub(super) class: Result<SecretProviderClass, String>,
}

/// The SecretProviderClasses of a file; an error for each one that can't even be named.
pub(super) fn read(text: &str) -> Vec<Result<Manifest, String>> {
    match serde_saphyr::from_multiple::<Value>(text) {
        Ok(documents) => documents
            .iter()
            .filter(|document| document["kind"].as_str() == Some(KIND))
            .map(manifest)
            .collect(),
        Err(error) => vec![Err(format!("not YAML: {error}"))],
    }
}

fn manifest(document: &Value) -> Result<Manifest, String> {
    let version = document["apiVersion"].as_str().unwrap_or_default();
    if version != API_VERSION {
        return Err(format!("apiVersion is {version:?}: write {API_VERSION}"));
    }
    let metadata = &document["metadata"];
    let name = text(metadata, "name")?;
    let name = ClassName::parse(name).map_err(|error| format!("metadata.name: {error}"))?;
    let namespace = text(metadata, "namespace")?;
    let namespace =
        Namespace::parse(namespace).map_err(|error| format!("metadata.namespace: {error}"))?;
    let class = class(&namespace, &name, &document["spec"]);
    Ok(Manifest { namespace, name, class })
}

fn text<'a>(metadata: &'a Value, key: &str) -> Result<&'a str, String> {
    metadata[key].as_str().ok_or_else(|| format!("metadata.{key} is missing or not text"))
}

fn class(
    namespace: &Namespace,
    name: &ClassName,
    spec: &Value,
) -> Result<SecretProviderClass, String> {
    let Some(provider) = spec["provider"].as_str().filter(|provider| !provider.is_empty()) else {
        return Err("spec.provider is missing: name the provider, e.g. openbao".to_owned());
    };
    let parameters = match &spec["parameters"] {
        Value::Null => BTreeMap::new(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                _ => Err(format!("spec.parameters.{key} is not text: put it in quotes")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err("spec.parameters is not a map of texts".to_owned()),
    };
    Ok(SecretProviderClass {
        namespace: namespace.clone(),
        name: name.clone(),
        provider: provider.to_owned(),
        parameters,
        wants_secret_objects: spec["secretObjects"].as_array().is_some_and(|list| !list.is_empty()),
    })
}
