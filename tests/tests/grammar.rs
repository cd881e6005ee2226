//! Each key of the vault and openbao providers' parameters, end to end: a SecretProviderClass as its
//! users write it, published on a node, and the files that their documents promise; or a refusal that
//! names the key.

#[path = "grammar/namespaces.rs"]
mod namespaces;
#[path = "grammar/objects.rs"]
mod objects;
#[path = "grammar/parameters.rs"]
mod parameters;
#[path = "grammar/refused.rs"]
mod refused;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;
use sotto_dev::kubelet::Pod;
use sotto_dev::test_store::TestStore;
use sotto_tests::scene::Scene;

/// The providers whose parameters are read here.
const PROVIDERS: [&str; 2] = ["vault", "openbao"];
/// Objects for tests that are about something else.
const ONE_OBJECT: &str =
    "- {objectName: p, secretPath: secret/data/payments/checkout/db, secretKey: password}";

/// Writes the manifest of a class of this provider, as a user would, into the node's classes; returns a pod
/// of its own for it. `parameters` are the lines beside `objects`.
fn apply<S: TestStore>(
    scene: &Scene<S>,
    class: &str,
    provider: &str,
    parameters: &[(&str, &str)],
    objects: &str,
) -> anyhow::Result<Pod> {
    let mut manifest = format!(
        "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata:\n  \
         name: {class}\n  namespace: payments\nspec:\n  provider: {provider}\n  parameters:\n"
    );
    for (name, value) in parameters {
        manifest += &format!("    {name}: {}\n", Value::from(*value));
    }
    manifest += "    objects: |\n";
    for line in objects.lines() {
        manifest += &format!("      {line}\n");
    }
    let path = scene.node().path("classes").join(format!("{class}.yaml"));
    std::fs::write(path, manifest).context("a class can't be written")?;
    Ok(scene.pod(&format!("{class}-0"), "checkout", class))
}

/// A class with [`ONE_OBJECT`], its pod published; the file's path.
async fn publish_with<S: TestStore>(
    scene: &Scene<S>,
    class: &str,
    provider: &str,
    parameters: &[(&str, &str)],
) -> anyhow::Result<(Pod, PathBuf)> {
    let pod = apply(scene, class, provider, parameters, ONE_OBJECT)?;
    let published = scene.publish(&pod).await;
    let target = published.with_context(|| format!("{provider} with {parameters:?}"))?;
    Ok((pod, target.join("p")))
}
