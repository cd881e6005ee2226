//! Pod-bound tokens of Kubernetes' exact shape, and every way in which one can be wrong.
//!
//! Signed by hand, without a JSON-web-token library: a token must be able to break any rule.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::key::{Algorithm, Key};
use crate::random;

/// The least life that Kubernetes gives.
const SHORTEST_LIFE: Duration = Duration::from_secs(600);

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// By the issuer's key, as it should be.
    Good,
    /// By somebody else's key, under the issuer's kid.
    Forged,
    /// By the issuer's key, and the claims changed afterwards.
    Tampered,
    /// Not at all: `alg: none`.
    Absent,
    /// `alg: HS256` with the issuer's public key as the secret.
    HmacOfPublicKey,
}

/// What a token says. Every field can be set; [`Self::claim`] and [`Self::header`] override the rest.
#[derive(Debug, Clone)]
pub struct PodTokenSpec {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// The service account's name.
    pub service_account: String,
    /// The service account's uid.
    pub service_account_uid: String,
    /// The node's name.
    pub node_name: String,
    /// The node's uid.
    pub node_uid: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `iat` and `nbf`.
    pub issued_at: SystemTime,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// Which kind of key signs.
    pub algorithm: Algorithm,
    /// How it is signed.
    pub signature: Signature,
    claims: Vec<(String, Option<Value>)>,
    header: Vec<(String, Option<Value>)>,
}

impl PodTokenSpec {
    /// A valid token of a pod, for the audience `bao`, issued now, for 600 s, signed with ES256.
    #[must_use]
    pub fn new(namespace: &str, service_account: &str, pod_name: &str, node_name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod_name: pod_name.to_owned(),
            pod_uid: random::uuid(),
            service_account: service_account.to_owned(),
            service_account_uid: random::uuid(),
            node_name: node_name.to_owned(),
            node_uid: random::uuid(),
            audiences: vec!["bao".to_owned()],
            issued_at: SystemTime::now(),
            lifetime: SHORTEST_LIFE,
            algorithm: Algorithm::Es256,
            signature: Signature::Good,
            claims: Vec::new(),
            header: Vec::new(),
        }
    }

    /// With this audience alone.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audiences = vec![audience.to_owned()];
        self
    }

    /// Signed with this kind of key.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Signed in this way.
    #[must_use]
    pub fn signature(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Issued at this moment.
    #[must_use]
    pub fn issued_at(mut self, moment: SystemTime) -> Self {
        self.issued_at = moment;
        self
    }

    /// Replaces the claim at a JSON pointer, e.g. `/kubernetes.io/pod/uid` or `/aud`.
    #[must_use]
    pub fn claim(mut self, pointer: &str, value: Value) -> Self {
        self.claims.push((pointer.to_owned(), Some(value)));
        self
    }

    /// Removes the claim at a JSON pointer.
    #[must_use]
    pub fn without_claim(mut self, pointer: &str) -> Self {
        self.claims.push((pointer.to_owned(), None));
        self
    }

    /// Replaces a field of the header, e.g. `kid`, `alg`, `crit`.
    #[must_use]
    pub fn header(mut self, name: &str, value: Value) -> Self {
        self.header.push((name.to_owned(), Some(value)));
        self
    }

    /// Removes a field of the header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.push((name.to_owned(), None));
        self
    }

    /// When the token ends by its own claim (before overrides).
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.issued_at + self.lifetime
    }

    /// The claims as they will be signed.
    #[must_use]
    pub fn claims(&self, issuer: &str) -> Value {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH).map_or(0, |since_epoch| since_epoch.as_secs())
        };
        let mut claims = json!({
            "aud": self.audiences,
            "exp": seconds(self.expires_at()),
            "iat": seconds(self.issued_at),
            "iss": issuer,
            "jti": random::uuid(),
            "kubernetes.io": {
                "namespace": self.namespace,
                "node": {"name": self.node_name, "uid": self.node_uid},
                "pod": {"name": self.pod_name, "uid": self.pod_uid},
                "serviceaccount": {"name": self.service_account, "uid": self.service_account_uid},
            },
            "nbf": seconds(self.issued_at),
            "sub": format!("system:serviceaccount:{}:{}", self.namespace, self.service_account),
        });
        for (pointer, value) in &self.claims {
            edit(&mut claims, pointer, value.clone());
        }
        claims
    }

    fn header_of(&self, algorithm: &str, kid: &str) -> Value {
        let mut header = json!({"alg": algorithm, "kid": kid});
        for (name, value) in &self.header {
            edit(&mut header, &format!("/{name}"), value.clone());
        }
        header
    }

    /// The token, in compact form. `stranger` signs what is forged.
    pub(super) fn sign(&self, issuer: &str, key: &Key, stranger: &Key) -> String {
        let algorithm = match self.signature {
            Signature::Good | Signature::Forged | Signature::Tampered => key.algorithm.as_str(),
            Signature::Absent => "none",
            Signature::HmacOfPublicKey => "HS256",
        };
        let claims = self.claims(issuer);
        let message = message(&self.header_of(algorithm, &key.kid), &claims);
        let sign = |key: &Key| key.sign(message.as_bytes()).expect("a key that was just made");
        let signature = match self.signature {
            Signature::Good | Signature::Tampered => sign(key),
            Signature::Forged => sign(stranger),
            Signature::Absent => Vec::new(),
            Signature::HmacOfPublicKey => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.public_der());
                aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
        };
        let shown = match self.signature {
            Signature::Tampered => tampered(&message, claims),
            Signature::Good
            | Signature::Forged
            | Signature::Absent
            | Signature::HmacOfPublicKey => message,
        };
        format!("{shown}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// The same header over other claims: a year more to live.
fn tampered(message: &str, mut claims: Value) -> String {
    const YEAR: u64 = 365 * 24 * 60 * 60;
    claims["exp"] = json!(claims["exp"].as_u64().unwrap_or_default() + YEAR);
    let header = message.split('.').next().unwrap_or_default();
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Sets or removes what a JSON pointer names, making the objects on the way.
fn edit(document: &mut Value, pointer: &str, value: Option<Value>) {
    let mut names: Vec<&str> = pointer.split('/').skip(1).collect();
    let Some(last) = names.pop() else { return };
    let mut at = document;
    for name in names {
        at = &mut at[name];
    }
    match (value, at) {
        (Some(value), at) => at[last] = value,
        (None, Value::Object(map)) => {
            map.remove(last);
        }
        (None, _) => {}
    }
}
