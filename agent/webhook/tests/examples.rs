//! The examples of `deploy/` that ask for the sidecar, injected with the settings of `deploy/`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use sotto_webhook::render::render;
use sotto_webhook::settings::Settings;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// Name and injected documents of each example.
fn injected() -> Vec<(String, Vec<Value>)> {
    let settings = Settings::load(&deploy().join("components/injection/config.yaml")).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(deploy().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("sidecar") {
            let text = std::fs::read_to_string(&path).unwrap();
            let rendered =
                render(&text, &settings).unwrap_or_else(|faults| panic!("{name}: {faults}"));
            found.push((name, serde_saphyr::from_multiple(&rendered).unwrap()));
        }
    }
    found
}

fn pod_specs(documents: &[Value]) -> impl Iterator<Item = &Value> {
    let spec = |document: &'_ Value| match document["kind"].as_str() {
        Some("Pod") => Some("/spec"),
        Some("Deployment" | "Job") => Some("/spec/template/spec"),
        _ => None,
    };
    documents.iter().filter_map(move |document| document.pointer(spec(document)?))
}

#[test]
fn each_example_gets_one_sidecar_before_whatever_reads_the_secrets() {
    let examples = injected();
    assert!(examples.len() >= 5, "a Deployment, a Job, an init container, Istio, exec");
    for (name, documents) in examples {
        let specs: Vec<_> = pod_specs(&documents).collect();
        assert_eq!(specs.len(), 1, "{name}");
        let containers = specs[0]["initContainers"].as_array().unwrap();
        assert_eq!(containers[0]["name"], "sotto-agent", "{name}");
        assert_eq!(containers[0]["restartPolicy"], "Always", "{name}");
        let mounts = |container: &Value| container["volumeMounts"].to_string();
        let readers = containers.iter().chain(specs[0]["containers"].as_array().unwrap());
        assert!(readers.into_iter().any(|it| mounts(it).contains("sotto-secrets")), "{name}");
        assert!(!mounts(&containers[0]).contains("sotto-secrets"), "{name}");
    }
}

#[test]
fn an_example_that_was_injected_stays_as_it_is() {
    let settings = Settings::load(&deploy().join("components/injection/config.yaml")).unwrap();
    for (name, documents) in injected() {
        let texts: Vec<_> =
            documents.iter().map(|it| serde_saphyr::to_string(it).unwrap()).collect();
        let again = render(&texts.join("\n---\n"), &settings).unwrap();
        let again: Vec<Value> = serde_saphyr::from_multiple(&again).unwrap();
        assert_eq!(again, documents, "{name}");
    }
}
