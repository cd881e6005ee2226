//! A SecretProviderClass as the API server sends it.
//!
//! Read leniently: one class with a wrong type in it must not hide all the others, as it would if the
//! whole page were parsed into a strict type.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;
use sotto_core::class::{KIND, SecretProviderClass};
use sotto_core::identity::{ClassName, Namespace};

use crate::calls::LIST_CLASSES;

pub(super) type Key = (Namespace, ClassName);

/// The class, or what is wrong with it.
pub(super) type Entry = Result<Arc<SecretProviderClass>, String>;

pub(super) fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(LIST_CLASSES.group, "v1", KIND);
    ApiResource::from_gvk_with_plural(&kind, LIST_CLASSES.resource)
}

/// Nothing if it has no name that a volume could state.
pub(super) fn key(object: &DynamicObject) -> Option<Key> {
    let namespace = Namespace::parse(object.metadata.namespace.clone()?).ok()?;
    let name = ClassName::parse(object.metadata.name.clone()?).ok()?;
    Some((namespace, name))
}

pub(super) fn entry(key: &Key, object: DynamicObject) -> Entry {
    let spec = &object.data["spec"];
    let Some(provider) = spec["provider"].as_str().filter(|name| !name.is_empty()) else {
        return Err("spec.provider is missing: name the provider, e.g. openbao".to_owned());
    };
    let parameters = match &spec["parameters"] {
        Value::Null => BTreeMap::new(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name.clone(), text.clone())),
                _ => Err(format!("spec.parameters.{name} is not text: put it in quotes")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err("spec.parameters is not a map of texts".to_owned()),
    };
    Ok(Arc::new(SecretProviderClass {
        namespace: key.0.clone(),
        name: key.1.clone(),
        provider: provider.to_owned(),
        parameters,
        wants_secret_objects: spec["secretObjects"].as_array().is_some_and(|list| !list.is_empty()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: Value) -> Entry {
        let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let key = key(&object).unwrap();
        entry(&key, object)
    }

    #[test]
    fn a_class_is_read_with_its_parameters_untouched() {
        let class = read(json!({"provider": "openbao", "secretObjects": [{}],
            "parameters": {"roleName": "r", "objects": "- a: b\n"}}))
        .unwrap();
        assert_eq!((class.namespace.as_str(), class.name.as_str()), ("shop", "web"));
        assert_eq!(class.parameters["objects"], "- a: b\n");
        assert!(class.wants_secret_objects);
        assert!(!read(json!({"provider": "p", "secretObjects": []})).unwrap().wants_secret_objects);
    }

    #[test]
    fn a_class_that_cannot_be_read_says_which_field_is_wrong() {
        assert!(read(json!({})).unwrap_err().contains("spec.provider"));
        assert!(read(json!({"provider": 1})).unwrap_err().contains("spec.provider"));
        let number = read(json!({"provider": "p", "parameters": {"x": 1}})).unwrap_err();
        assert_eq!(number, "spec.parameters.x is not text: put it in quotes");
        assert!(read(json!({"provider": "p", "parameters": []})).unwrap_err().contains("map"));
    }
}
