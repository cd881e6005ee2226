//! The pods' tokens, kept as kubelet keeps them: the same one again until 80 % of its life.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sotto_core::clock::Clock;

use super::manifest::{CsiDriver, Pod};
use crate::issuer::{Issuer, PodTokenSpec};

/// What a token says before it is signed; a test may change it.
pub type Mint = dyn Fn(PodTokenSpec) -> PodTokenSpec + Send + Sync;

/// Asks the issuer for tokens and keeps them.
pub(super) struct Tokens {
    issuer: Issuer,
    clock: Mutex<Arc<dyn Clock>>,
    node: (String, String),
    mint: Mutex<Arc<Mint>>,
    kept: Mutex<BTreeMap<(String, String), Kept>>,
}

struct Kept {
    token: String,
    expires_at: SystemTime,
    refresh_at: SystemTime,
}

impl Tokens {
    pub(super) fn new(issuer: Issuer, clock: Arc<dyn Clock>, node: (String, String)) -> Self {
        let mint: Arc<Mint> = Arc::new(|spec| spec);
        let (clock, mint) = (Mutex::new(clock), Mutex::new(mint));
        Self { issuer, clock, node, mint, kept: Mutex::default() }
    }

    /// From now on tokens are issued and refreshed by this clock; what was kept is forgotten.
    pub(super) fn use_clock(&self, clock: Arc<dyn Clock>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
        self.forget();
    }

    /// Nothing is kept.
    pub(super) fn forget(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// From now on tokens say what the function makes of them; what was kept is forgotten.
    pub(super) fn mint_with(&self, mint: Arc<Mint>) {
        *self.mint.lock().unwrap_or_else(PoisonError::into_inner) = mint;
        self.forget();
    }

    /// The value of `csi.storage.k8s.io/serviceAccount.tokens`; `None` where the driver asks for none.
    pub(super) fn of(&self, pod: &Pod, driver: &CsiDriver) -> Option<String> {
        if driver.token_requests.is_empty() {
            return None;
        }
        let tokens: BTreeMap<&str, Value> = driver
            .token_requests
            .iter()
            .map(|(audience, life)| (audience.as_str(), self.token(pod, audience, *life)))
            .collect();
        Some(json!(tokens).to_string())
    }

    /// A token alone.
    pub(super) fn projected(&self, pod: &Pod, audience: &str, life: Duration) -> String {
        self.token(pod, audience, life)["token"].as_str().unwrap_or_default().to_owned()
    }

    fn token(&self, pod: &Pod, audience: &str, life: Duration) -> Value {
        let now = self.clock.lock().unwrap_or_else(PoisonError::into_inner).now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (pod.uid.clone(), audience.to_owned());
        let token = match kept.remove(&key) {
            Some(token) if now < token.refresh_at => token,
            Some(_) | None => self.request(pod, audience, life, now),
        };
        let value = json!({
            "token": token.token,
            "expirationTimestamp": humantime::format_rfc3339_seconds(token.expires_at).to_string(),
        });
        kept.insert(key, token);
        value
    }

    fn request(&self, pod: &Pod, audience: &str, life: Duration, now: SystemTime) -> Kept {
        let mut spec =
            PodTokenSpec::new(&pod.namespace, &pod.service_account, &pod.name, &self.node.0)
                .audience(audience)
                .issued_at(now);
        spec.pod_uid.clone_from(&pod.uid);
        spec.service_account_uid.clone_from(&pod.service_account_uid);
        spec.node_uid.clone_from(&self.node.1);
        spec.lifetime = life;
        let mint = Arc::clone(&self.mint.lock().unwrap_or_else(PoisonError::into_inner));
        let token = self.issuer.mint(&mint(spec));
        Kept { token, expires_at: now + life, refresh_at: now + life * 8 / 10 }
    }
}
