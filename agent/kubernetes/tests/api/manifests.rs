//! The manifests in `deploy/`: read, and through the types of Kubernetes 1.36 and back unchanged.
//!
//! What a type doesn't know is dropped on the way, so a field with a wrong name, or of a newer
//! Kubernetes, shows as a difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::{
    admissionregistration, apps, batch, core, networking, policy, rbac, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Groups whose types k8s-openapi doesn't have.
const FOREIGN: &[&str] =
    &["secrets-store.csi.x-k8s.io", "cert-manager.io", "security.openshift.io"];
/// What `kubectl kustomize` builds.
const BUILDS: &[&str] = &["base", "crds", "overlays/dev", "overlays/drop-in", "overlays/openshift"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// The objects in the YAML files of a folder of `deploy/`, but for kustomizations and what isn't an
/// object.
pub(crate) fn of_folder(folder: &str) -> Vec<Value> {
    let entries = fs::read_dir(deploy().join(folder)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "yaml"));
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    let mut objects: Vec<Value> = texts.flat_map(|text| parse(&text)).collect();
    objects.retain(|one| {
        one["kind"].is_string() && one["kind"] != "Kustomization" && one["kind"] != "Component"
    });
    objects
}

/// Those of one kind.
pub(crate) fn of_kind(folder: &str, kind: &str) -> Vec<Value> {
    let mut objects = of_folder(folder);
    objects.retain(|one| one["kind"] == kind);
    objects
}

/// What `kubectl kustomize` makes of a folder. Nothing where kubectl is missing, but not in CI.
pub(crate) fn built(folder: &str) -> Vec<Value> {
    let built = Command::new("kubectl").arg("kustomize").arg(deploy().join(folder)).output();
    let built = match built {
        Err(error) if std::env::var_os("CI").is_none() => {
            tracing::warn!(%error, "kubectl is not installed: overlays are not checked");
            return Vec::new();
        }
        built => built.expect("kubectl is needed for this test"),
    };
    assert!(built.status.success(), "{folder}: {}", String::from_utf8_lossy(&built.stderr));
    let objects = parse(&String::from_utf8(built.stdout).unwrap());
    assert!(!objects.is_empty(), "{folder} builds nothing");
    objects
}

fn parse(text: &str) -> Vec<Value> {
    // Kubernetes reads YAML 1.1, where 0440 is octal.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).unwrap()
}

/// Through the type and back; the difference, if there is one. Nothing for a foreign group.
fn round_trip(object: &Value) -> Option<Result<(), String>> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    if FOREIGN.iter().any(|group| api_version.starts_with(&format!("{group}/"))) {
        return None;
    }
    let through = match (api_version, object["kind"].as_str().unwrap_or_default()) {
        ("v1", "Namespace") => through::<core::v1::Namespace>,
        ("v1", "ServiceAccount") => through::<core::v1::ServiceAccount>,
        ("v1", "ConfigMap") => through::<core::v1::ConfigMap>,
        ("v1", "ResourceQuota") => through::<core::v1::ResourceQuota>,
        ("v1", "Service") => through::<core::v1::Service>,
        ("v1", "Pod") => through::<core::v1::Pod>,
        ("apps/v1", "DaemonSet") => through::<apps::v1::DaemonSet>,
        ("apps/v1", "Deployment") => through::<apps::v1::Deployment>,
        ("batch/v1", "Job") => through::<batch::v1::Job>,
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<networking::v1::NetworkPolicy>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<rbac::v1::ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            through::<rbac::v1::ClusterRoleBinding>
        }
        ("rbac.authorization.k8s.io/v1", "Role") => through::<rbac::v1::Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<rbac::v1::RoleBinding>,
        ("policy/v1", "PodDisruptionBudget") => through::<policy::v1::PodDisruptionBudget>,
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration") => {
            through::<admissionregistration::v1::MutatingWebhookConfiguration>
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            through::<admissionregistration::v1::ValidatingAdmissionPolicy>
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            through::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>
        }
        ("storage.k8s.io/v1", "CSIDriver") => through::<storage::v1::CSIDriver>,
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            through::<apiextensions::v1::CustomResourceDefinition>
        }
        (version, kind) => return Some(Err(format!("{version} {kind}: add its type here"))),
    };
    Some(through(object))
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    match difference("", object, &back) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

/// The first path at which they differ.
fn difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.keys().chain(other.keys()).find_map(|key| match (one.get(key), other.get(key)) {
                (Some(one), Some(other)) => difference(&format!("{path}.{key}"), one, other),
                (one, other) => Some(format!("{path}.{key}: {one:?} became {other:?}")),
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs
                .into_iter()
                .find_map(|(n, (one, other))| difference(&format!("{path}[{n}]"), one, other))
        }
        (one, other) => (one != other).then(|| format!("{path}: {one} became {other}")),
    }
}

fn check(source: &str, objects: &[Value]) -> usize {
    let mut checked = 0;
    for object in objects {
        let name = format!("{source}: {} {}", object["kind"], object["metadata"]["name"]);
        if let Some(result) = round_trip(object) {
            result.unwrap_or_else(|difference| panic!("{name} {difference}"));
            checked += 1;
        }
    }
    checked
}

#[test]
fn every_manifest_survives_the_types_of_kubernetes_unchanged() {
    let folders = ["base", "crds", "examples", "components/injection"];
    let checked: usize = folders.iter().map(|folder| check(folder, &of_folder(folder))).sum();
    assert!(checked > 20, "the manifests were not found: {checked}");
}

#[test]
fn base_and_every_overlay_build_and_survive_the_types_unchanged() {
    for folder in BUILDS {
        check(folder, &built(folder));
    }
}

#[test]
fn every_overlay_is_on_the_list() {
    let overlays = fs::read_dir(deploy().join("overlays")).unwrap();
    for overlay in overlays {
        let name = format!("overlays/{}", overlay.unwrap().file_name().to_string_lossy());
        assert!(BUILDS.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_detected() {
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": "x"}, "spec": {"serviceAccountTokenInSecrets": true}});
    assert_eq!(round_trip(&driver), Some(Ok(())), "the feature level is 1.35 or later");
    let mut wrong = driver;
    wrong["spec"]["serviceAccountTokensInSecrets"] = json!(true);
    let found = round_trip(&wrong).unwrap().unwrap_err();
    assert!(found.contains(".spec.serviceAccountTokensInSecrets"), "{found}");
    let unknown = json!({"apiVersion": "v1", "kind": "Secret"});
    assert!(round_trip(&unknown).unwrap().unwrap_err().contains("add its type here"));
}

#[test]
fn every_class_in_deploy_is_one_that_we_can_read() {
    let classes = of_kind("examples", "SecretProviderClass");
    assert!(!classes.is_empty());
    for class in classes {
        assert_eq!(class["apiVersion"], sotto_core::class::API_VERSION);
        assert!(class["spec"]["provider"].is_string(), "{}", class["metadata"]["name"]);
        let parameters = class["spec"]["parameters"].as_object().unwrap();
        assert!(parameters.values().all(Value::is_string), "{}", class["metadata"]["name"]);
    }
}

#[test]
fn the_crds_have_the_names_that_we_ask_for_and_no_status_of_their_own() {
    let crds = of_kind("crds", "CustomResourceDefinition");
    for plural in ["secretproviderclasses", "secretproviderclasspodstatuses"] {
        let crd = crds.iter().find(|crd| crd["spec"]["names"]["plural"] == plural);
        let crd = crd.unwrap_or_else(|| panic!("no CRD of {plural}"));
        assert_eq!(crd["spec"]["group"], "secrets-store.csi.x-k8s.io");
        let version = &crd["spec"]["versions"][0];
        assert_eq!((&version["name"], &version["served"]), (&json!("v1"), &json!(true)));
        // With a status subresource the API server would drop the status that we apply.
        assert!(version["subresources"].is_null(), "{plural}");
    }
}
