//! Whether something in a pod is what the injection would write there.

use serde_json::Value;

use crate::fault::{Fault, quoted};

/// Adds a fault for each way in which `actual` isn't `expected`. Null is as good as absent; what Kubernetes
/// itself adds to a container is no difference.
pub(super) fn compare(at: &str, expected: &Value, actual: &Value, faults: &mut Vec<Fault>) {
    Comparison { at, faults }.values("", expected, actual);
}

struct Comparison<'a> {
    at: &'a str,
    faults: &'a mut Vec<Fault>,
}

impl Comparison<'_> {
    fn values(&mut self, below: &str, expected: &Value, actual: &Value) {
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => {
                for (key, value) in expected {
                    let below = format!("{below}.{key}");
                    self.values(&below, value, actual.get(key).unwrap_or(&Value::Null));
                }
                let others = actual.iter().filter(|(key, _)| !expected.contains_key(*key));
                for (key, value) in others.filter(|(_, value)| !value.is_null()) {
                    let below = format!("{below}.{key}");
                    if !is_added_by_kubernetes(&below, value) {
                        self.fault(&below, format!("{} was added", shown(value)));
                    }
                }
            }
            (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.values(&format!("{below}[{index}]"), expected, actual);
                }
            }
            (expected, actual) if expected == actual => {}
            (expected, actual) => {
                self.fault(below, format!("it is {}, not {}", shown(actual), shown(expected)));
            }
        }
    }

    fn fault(&mut self, below: &str, what: String) {
        let message = format!("{what}: what is named sotto-* is the webhook's own, remove it");
        self.faults.push(Fault::new(format!("{}{below}", self.at), message));
    }
}

/// A LimitRange fills what a container's resources leave open; the API server writes a resize policy and the
/// default of a field that few set.
fn is_added_by_kubernetes(below: &str, value: &Value) -> bool {
    below == ".resizePolicy"
        || (below == ".securityContext.procMount" && value == "Default")
        || below.starts_with(".resources.limits.")
        || below.starts_with(".resources.requests.")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Null => "absent".to_owned(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "a map".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(expected: &Value, actual: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        compare("x", expected, actual, &mut faults);
        faults.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn each_difference_is_found_with_its_path() {
        let expected = json!({"a": 1, "b": {"c": [1, {"d": true}]}, "e": [1]});
        let actual = json!({"b": {"c": [1, {"d": false, "f": 2}]}, "e": [1, 2], "g": null});
        assert_eq!(faults(&expected, &actual), ["x.a", "x.b.c[1].d", "x.b.c[1].f", "x.e"]);
        assert_eq!(faults(&expected, &expected), Vec::<String>::new());
    }

    #[test]
    fn only_what_kubernetes_adds_is_no_difference() {
        let expected = json!({"resources": {"limits": {"memory": "64Mi"}}});
        let mut actual = expected.clone();
        actual["resources"]["limits"]["cpu"] = json!("1");
        actual["resizePolicy"] = json!([]);
        assert_eq!(faults(&expected, &actual), Vec::<String>::new());
        actual["env"] = json!([{"name": "LD_PRELOAD"}]);
        actual["resources"]["limits"]["memory"] = json!("1Gi");
        assert_eq!(faults(&expected, &actual), ["x.resources.limits.memory", "x.env"]);
    }
}
