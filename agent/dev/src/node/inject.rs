//! What the webhook makes of a manifest: `sotto-webhook render` with the settings of `deploy/`, as a process of its
//! own, as anybody may run it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Node, NodeError};
use crate::pki::write_file;
use crate::process::{Program, Running, Stream};
use crate::random;

/// The webhook's settings of a cluster.
const SETTINGS: &str = include_str!("../../../../deploy/components/injection/config.yaml");
const DEADLINE: Duration = Duration::from_secs(20);

impl Node {
    /// The manifest with the sidecar in each pod that asks for it. The stores here want client certificates, so the
    /// settings have a volume with one, which the kit plays.
    ///
    /// # Errors
    /// The webhook isn't built, or refuses the manifest: with its words.
    pub async fn inject(&self, manifest: &str) -> Result<String, NodeError> {
        let name = random::hex::<4>();
        let (settings, pods) = (self.path(&format!("etc/webhook-{name}.yaml")), self.path(&name));
        write_file(&settings, &settings_with_certificate()?, 0o644)?;
        write_file(&pods, manifest, 0o644)?;
        let rendered = self.render(&settings, &pods).await;
        std::fs::remove_file(settings)?;
        std::fs::remove_file(pods)?;
        rendered
    }

    async fn render(&self, settings: &Path, pods: &Path) -> Result<String, NodeError> {
        let program = Program::new("sotto-webhook", self.path("bin/sotto-webhook"));
        let config = format!("--config={}", settings.display());
        let program = program.arguments(["render".to_owned(), config]).input(pods);
        let webhook = Running::start(program).await?;
        if !webhook.wait(DEADLINE).await?.success() {
            return Err(NodeError::NotInjected(webhook.log().lines(Stream::Error).join("\n")));
        }
        Ok(webhook.log().lines(Stream::Output).join("\n"))
    }
}

fn settings_with_certificate() -> std::io::Result<String> {
    let mut settings: Value = serde_saphyr::from_str(SETTINGS).map_err(std::io::Error::other)?;
    settings["agent"]["clientCertificate"] = json!({"csi": {
        "driver": "csi.cert-manager.io",
        "readOnly": true,
        "volumeAttributes": {
            "csi.cert-manager.io/issuer-kind": "ClusterIssuer",
            "csi.cert-manager.io/issuer-name": "sotto",
        },
    }});
    serde_saphyr::to_string(&settings).map_err(std::io::Error::other)
}
