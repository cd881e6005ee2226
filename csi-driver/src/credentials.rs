//! What kubelet brings anew with each publish: for the agent, in wiped memory, and nowhere else.

use std::collections::BTreeMap;

use sotto_core::secret::{SecretBytes, SecretString};

/// JSON needs at most six bytes for one, and some for the frame.
const JSON_BYTES: usize = 6;
const FRAME_BYTES: usize = 16;

/// A pod's tokens, and what its `nodePublishSecretRef` holds.
pub struct Credentials {
    /// kubelet's JSON map of tokens by audience.
    pub tokens: SecretBytes,
    /// A JSON map of strings; empty without a `nodePublishSecretRef`.
    pub publish_secrets: SecretBytes,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// None: what a sidecar's driver gets from kubelet.
    #[must_use]
    pub fn none() -> Self {
        Self::of_tokens(SecretBytes::new(Vec::new()))
    }

    /// Tokens alone.
    #[must_use]
    pub fn of_tokens(tokens: SecretBytes) -> Self {
        Self { tokens, publish_secrets: SecretBytes::new(Vec::new()) }
    }
}

/// The map as JSON; empty for an empty one.
pub(crate) fn publish_secrets(secrets: &BTreeMap<String, SecretString>) -> SecretBytes {
    if secrets.is_empty() {
        return SecretBytes::new(Vec::new());
    }
    let bytes = |(key, value): (&String, &SecretString)| {
        FRAME_BYTES + JSON_BYTES * (key.len() + value.expose().len())
    };
    // Of its final size at once: nothing is left where it was smaller.
    let mut json = Vec::with_capacity(secrets.iter().map(bytes).sum());
    let exposed: BTreeMap<&str, &str> =
        secrets.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    // A map of strings is JSON, and memory takes it.
    let written = serde_json::to_writer(&mut json, &exposed);
    debug_assert!(written.is_ok());
    SecretBytes::new(json)
}
