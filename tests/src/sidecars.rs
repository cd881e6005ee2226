//! Pods with a sidecar in a scene: made by the webhook, brought up and taken down as a kubelet does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_dev::kubelet::Pod;
use sotto_dev::node::Injected;
use sotto_dev::test_store::TestStore;

use crate::files;
use crate::scene::{Scene, StoreSettings};

/// Longer than anything takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The class that [`scene`] has.
pub const CLASS: &str = "db";
const OBJECTS: &str = "\
    - {objectName: password, secretPath: secret/data/payments/checkout/db, secretKey: password}\n\
    - {objectName: tls/user, secretPath: secret/data/payments/checkout/db, secretKey: user}";

/// A node that takes pods with sidecars, a real OpenBao, and the class [`CLASS`] of two files.
///
/// # Errors
/// What could not be started.
pub async fn scene() -> anyhow::Result<Scene<Bao>> {
    scene_with(StoreSettings::sidecars()).await
}

/// As [`scene`], with other settings.
///
/// # Errors
/// What could not be started.
pub async fn scene_with(settings: StoreSettings) -> anyhow::Result<Scene<Bao>> {
    let scene = Scene::openbao_with(StoreSettings { sidecars: true, ..settings }).await?;
    prepare(&scene).await?;
    Ok(scene)
}

/// Gives a scene the class [`CLASS`] and its secret.
///
/// # Errors
/// The store refuses.
pub async fn prepare<S: TestStore>(scene: &Scene<S>) -> anyhow::Result<()> {
    write(scene, "p-1").await?;
    scene.class(CLASS, OBJECTS)
}

/// Gives the secret of [`CLASS`] a value.
///
/// # Errors
/// The store refuses.
pub async fn write<S: TestStore>(scene: &Scene<S>, password: &str) -> anyhow::Result<()> {
    let secret = json!({"password": password, "user": "u-1"});
    scene.write("payments/checkout/db", secret).await.map(drop)
}

/// A pod as its author writes it.
#[must_use]
pub fn manifest(name: &str, account: &str, annotations: &[(&str, &str)]) -> String {
    let mut all = json!({"sotto.dev/secret-provider-class": CLASS});
    for (key, value) in annotations {
        all[key] = json!(value);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "payments",
            "labels": {"sotto.dev/inject": "true"}, "annotations": all,
        },
        "spec": {
            "serviceAccountName": account,
            "containers": [{"name": "app", "image": "registry.invalid/app:1"}],
        },
    })
    .to_string()
}

impl<S: TestStore> Scene<S> {
    /// A pod of service account `checkout` with a sidecar; nothing of it is published or runs yet.
    ///
    /// # Errors
    /// The webhook refuses it.
    pub async fn injected(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
    ) -> anyhow::Result<Injected> {
        self.injected_as(name, "checkout", annotations).await
    }

    /// As [`Self::injected`], of another service account.
    ///
    /// # Errors
    /// The webhook refuses it.
    pub async fn injected_as(
        &self,
        name: &str,
        account: &str,
        annotations: &[(&str, &str)],
    ) -> anyhow::Result<Injected> {
        let made = self.node().inject(&manifest(name, account, annotations)).await?;
        let client = self.authority().client(&format!("{name}.payments.pod"))?;
        Ok(self.node().injected(&Pod::parse(&made)?, &client)?)
    }

    /// A pod whose application could start now, and where that sees its secrets.
    ///
    /// # Errors
    /// It never comes so far.
    pub async fn delivered(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
    ) -> anyhow::Result<(Injected, PathBuf)> {
        let mut pod = self.injected(name, annotations).await?;
        self.publish_injected(&pod).await?;
        pod.start_sidecar(self.node()).await?;
        pod.ready(self.node(), PATIENCE).await?;
        let secrets = pod.show_secrets(self.node())?;
        Ok((pod, secrets))
    }

    /// Publishes both volumes of a pod.
    ///
    /// # Errors
    /// What the pod's event would show, with the last lines of both processes.
    pub async fn publish_injected(&self, pod: &Injected) -> anyhow::Result<()> {
        let published = pod.publish(self.node(), PATIENCE).await;
        published.with_context(|| format!("publish failed{}", self.last_lines_of(pod)))
    }

    /// The last lines of everything that has to do with a pod.
    pub fn last_lines_of(&self, pod: &Injected) -> String {
        let (csi, agent) = (self.node().csi().log().tail(), self.node().agent().log().tail());
        let sidecar = pod.output();
        let from = sidecar.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
        format!("\nsotto-csi:\n{csi}\nsotto-node:\n{agent}\nsotto-agent:\n{}", &sidecar[from..])
    }
}

/// Waits until a file shows this value.
///
/// # Errors
/// It never does, or can't be read.
pub async fn shows(file: &Path, value: &str) -> anyhow::Result<()> {
    let shown = async {
        while files::read(file.to_owned()).await? != value {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let what = || format!("{} never shows {value}", file.display());
    tokio::time::timeout(PATIENCE, shown).await.with_context(what)?
}

/// Accessors of the tokens that logins of pods have been given and that are alive, as the store's administrator
/// lists them.
///
/// # Errors
/// The store refuses.
pub async fn pod_tokens(bao: &Bao) -> anyhow::Result<Vec<String>> {
    let listed = bao.admin(Method::from_bytes(b"LIST")?, "auth/token/accessors", None).await?;
    let mut of_pods = Vec::new();
    for accessor in listed["data"]["keys"].as_array().into_iter().flatten() {
        let body = json!({"accessor": accessor});
        // One that ended since it was listed is none.
        let Ok(found) = bao.admin(Method::POST, "auth/token/lookup-accessor", Some(body)).await
        else {
            continue;
        };
        let path = found["data"]["path"].as_str().unwrap_or_default();
        if path.starts_with("auth/jwt/") {
            of_pods.push(accessor.as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(of_pods)
}

/// Waits until the store has no token of a pod any more.
///
/// # Errors
/// One is left.
pub async fn no_tokens_are_left(bao: &Bao) -> anyhow::Result<()> {
    let gone = async {
        while !pod_tokens(bao).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, gone).await.context("a pod's token is left in the store")?
}

/// Whether an audit record is of this action and decision.
#[must_use]
pub fn is(record: &Value, action: &str, decision: &str) -> bool {
    record["action"] == action && record["decision"] == decision
}
