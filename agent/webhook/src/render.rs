//! The same injection over manifests, offline: for GitOps and for review before anything runs.
//!
//! Invariant: all documents or none; what isn't a pod or a workload passes as it is. Comments and the order
//! of keys are lost, values are not.

use serde_json::Value;

use crate::fault::{Fault, Faults};
use crate::inject::inject;
use crate::patch;
use crate::settings::Settings;

/// Largest input, in bytes.
pub const MAX_INPUT_BYTES: u64 = 16 << 20;

/// Injects every pod and every workload's template in a YAML stream.
///
/// # Errors
/// All faults of all documents, each with its object's name.
pub fn render(text: &str, settings: &Settings) -> Result<String, Faults> {
    // Kubernetes reads YAML 1.1, where 0440 is octal.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let mut documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Faults(vec![Fault::new("", format!("not YAML: {error}"))]))?;
    documents.retain(|document| !document.is_null());
    let mut faults = Vec::new();
    for document in &mut documents {
        object(document, settings, &mut faults);
    }
    if documents.is_empty() {
        faults.push(Fault::new("", "there is no manifest in the input"));
    }
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    written(&documents).map_err(|error| Faults(vec![Fault::new("", error)]))
}

fn written(documents: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let documents: Result<Vec<_>, _> = documents.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.iter().map(|one| one.trim_end()).collect::<Vec<_>>().join("\n---\n") + "\n")
}

fn object(document: &mut Value, settings: &Settings, faults: &mut Vec<Fault>) {
    if document["apiVersion"] == "v1" && document["kind"] == "List" {
        for item in document["items"].as_array_mut().into_iter().flatten() {
            object(item, settings, faults);
        }
        return;
    }
    let name = name(document);
    let Some(template) = template(document) else { return };
    let Some(pod) = document.pointer_mut(template) else {
        faults.push(Fault::new(name, "it has no template of a pod"));
        return;
    };
    match inject(pod, settings) {
        Ok(operations) => {
            if let Err(error) = patch::apply(pod, &operations) {
                faults.push(Fault::new(name, error));
            }
        }
        Err(Faults(found)) => {
            faults.extend(found.into_iter().map(|fault| Fault::new(name.as_str(), fault)));
        }
    }
}

fn name(document: &Value) -> String {
    let text = |pointer| document.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
    let name = name.unwrap_or("without a name");
    let kind = text("/kind").unwrap_or("object");
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// Where a kind keeps its pod, as a JSON pointer.
fn template(document: &Value) -> Option<&'static str> {
    match (document["apiVersion"].as_str()?, document["kind"].as_str()?) {
        ("v1", "Pod") => Some(""),
        ("v1", "PodTemplate") => Some("/template"),
        ("v1", "ReplicationController")
        | ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch/v1", "Job") => Some("/spec/template"),
        ("batch/v1", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::parse("agent: { image: registry.example/agent:1 }\ntoken: { audience: bao }")
            .unwrap()
    }

    #[test]
    fn texts_that_yaml_1_1_takes_for_something_else_stay_texts() {
        let texts = [
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "n",
            "true",
            "null",
            "~",
            "0440",
            "0o17",
            "1_000",
            "1e3",
            "12:30:45",
            "0x1f",
            ".5",
            ".inf",
            "=",
            "<<",
            "2024-01-01",
            "",
            " a",
            "a: b",
            "a #b",
            "-",
            "- a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "a\nb\n",
            "a\tb",
            "\u{e4}",
        ];
        for text in texts {
            let manifest = serde_json::json!({"kind": "ConfigMap", "data": {"key": text}});
            let rendered = render(&manifest.to_string(), &settings()).unwrap();
            let value = rendered.split_once("key:").unwrap().1.trim_start();
            let quoted = value.starts_with(['"', '\'', '|']);
            assert!(quoted || text == "\u{e4}", "{text:?} became {value:?}");
            let options = serde_saphyr::options! { legacy_octal_numbers: true };
            let back: Value = serde_saphyr::from_str_with_options(&rendered, options).unwrap();
            assert_eq!(back, manifest, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_workload_passes_as_it_is() {
        let text =
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n---\n\n---\nkind: Other\n";
        let rendered = render(text, &settings()).unwrap();
        assert_eq!(
            rendered,
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n---\nkind: Other\n"
        );
    }

    #[test]
    fn faults_of_every_document_are_told_and_nothing_is_written() {
        let pod = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  labels: \
                 {{ sotto.dev/inject: \"true\" }}\nspec: {{ containers: [{{ name: app }}] }}\n"
            )
        };
        let text =
            format!("{}---\n{}---\napiVersion: apps/v1\nkind: Deployment\n", pod("a"), pod("b"));
        let faults = render(&text, &settings()).unwrap_err().to_string();
        for part in ["Pod shop/a: ", "Pod shop/b: ", "Deployment without a name: "] {
            assert!(faults.contains(part), "{faults}");
        }
        assert!(render("", &settings()).is_err() && render("a: [", &settings()).is_err());
    }
}
