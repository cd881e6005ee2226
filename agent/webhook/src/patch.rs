//! A JSON patch (RFC 6902) that only adds.
//!
//! Invariant: an operation's path names something that isn't there (or is null), or a place in a list, so
//! nothing that an author wrote is replaced. The patch is made of raw JSON: a round trip through types would
//! drop the fields that they don't know.

use serde_json::{Value, json};

/// One `add`.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// A JSON pointer (RFC 6901).
    pub path: String,
    /// What is added there.
    pub value: Value,
}

/// A patch that doesn't fit its document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be added at {0:?}")]
pub struct ApplyError(String);

impl Operation {
    pub(crate) fn new(path: impl Into<String>, value: Value) -> Self {
        Self { path: path.into(), value }
    }
}

/// The patch as the API server takes it.
#[must_use]
pub fn to_json(operations: &[Operation]) -> Value {
    let adds = operations
        .iter()
        .map(|one| json!({"op": "add", "path": one.path, "value": one.value}))
        .collect();
    Value::Array(adds)
}

/// Adds to the list at `list`, which may not exist yet: at `index`, or at its end.
pub(crate) fn add_to_list(
    list: &str,
    exists: bool,
    index: Option<usize>,
    values: Vec<Value>,
) -> Vec<Operation> {
    if !exists {
        return vec![Operation::new(list, Value::Array(values))];
    }
    let at = |offset: usize| match index {
        Some(index) => format!("{list}/{}", index + offset),
        None => format!("{list}/-"),
    };
    values.into_iter().enumerate().map(|(n, value)| Operation::new(at(n), value)).collect()
}

/// Applies a patch to a document.
///
/// # Errors
/// The first operation that doesn't fit; those before it were applied.
pub fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), ApplyError> {
    operations.iter().try_for_each(|one| add(document, one))
}

fn add(document: &mut Value, operation: &Operation) -> Result<(), ApplyError> {
    let refused = || ApplyError(operation.path.clone());
    let (parent, last) = operation.path.rsplit_once('/').ok_or_else(refused)?;
    let value = operation.value.clone();
    match document.pointer_mut(parent).ok_or_else(refused)? {
        Value::Object(map) => {
            let before = map.insert(last.replace("~1", "/").replace("~0", "~"), value);
            before.is_none_or(|before| before.is_null()).then_some(()).ok_or_else(refused)
        }
        Value::Array(list) => {
            let index = if last == "-" { Some(list.len()) } else { last.parse().ok() };
            let index = index.filter(|index| *index <= list.len()).ok_or_else(refused)?;
            list.insert(index, value);
            Ok(())
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_made_where_there_is_none() {
        let mut pod = json!({"spec": {"containers": []}});
        let operations = add_to_list("/spec/volumes", false, None, vec![json!(1), json!(2)]);
        apply(&mut pod, &operations).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([1, 2]));
    }

    #[test]
    fn what_is_added_to_a_list_keeps_its_order() {
        let mut pod = json!({"spec": {"initContainers": [8, 9], "volumes": [1]}});
        let mut operations =
            add_to_list("/spec/initContainers", true, Some(1), vec![json!(1), json!(2)]);
        operations.extend(add_to_list("/spec/volumes", true, None, vec![json!(2), json!(3)]));
        apply(&mut pod, &operations).unwrap();
        assert_eq!(pod["spec"]["initContainers"], json!([8, 1, 2, 9]));
        assert_eq!(pod["spec"]["volumes"], json!([1, 2, 3]));
    }

    #[test]
    fn what_is_there_is_not_replaced() {
        let mut pod = json!({"spec": {"hostNetwork": true, "volumes": null, "list": []}});
        let error = apply(&mut pod, &[Operation::new("/spec/hostNetwork", json!(false))]);
        assert_eq!(error, Err(ApplyError("/spec/hostNetwork".to_owned())));
        assert!(apply(&mut pod, &[Operation::new("/spec/volumes", json!([]))]).is_ok());
        assert!(apply(&mut pod, &[Operation::new("/spec/list/1", json!(1))]).is_err());
        assert!(apply(&mut pod, &[Operation::new("/none/of/it", json!(1))]).is_err());
    }
}
