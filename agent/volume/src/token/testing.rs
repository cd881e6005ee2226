//! Tokens for tests: good ones of Kubernetes' exact shape, and hostile ones that no library would make.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sotto_core::identity::{
    Audience, Namespace, NodeName, PodName, PodUid, ServiceAccountName, WorkloadIdentity,
};
use sotto_core::secret::SecretString;

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
pub(crate) const NOW: u64 = 1_800_000_000;

/// A key that signs, under one id.
pub(crate) enum Signer {
    Ec(String, EcdsaKeyPair),
    Rsa(String, Box<RsaKeyPair>),
}

impl Signer {
    pub(crate) fn ec(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::Ec(kid.to_owned(), key)
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        Self::Rsa(kid.to_owned(), Box::new(key))
    }

    /// Its public half as an entry of a key set.
    pub(crate) fn jwk(&self) -> Value {
        match self {
            Self::Ec(kid, key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
                       "x": encode(x), "y": encode(y)})
            }
            Self::Rsa(kid, key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid,
                       "n": encode(&public.n), "e": encode(&public.e)})
            }
        }
    }

    pub(crate) fn header(&self) -> Value {
        match self {
            Self::Ec(kid, _) => json!({"alg": "ES256", "kid": kid}),
            Self::Rsa(kid, _) => json!({"alg": "RS256", "kid": kid}),
        }
    }

    /// Signs whatever header and claims say, also what they must not.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> SecretString {
        let body = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match self {
            Self::Ec(_, key) => key.sign(&random, body.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Rsa(_, key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, body.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        SecretString::new(format!("{body}.{}", encode(&signature)))
    }

    /// A good token of [`pod`] for `audience`.
    pub(crate) fn mint(&self, audience: &str) -> SecretString {
        self.sign(&self.header(), &claims(audience))
    }
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

pub(crate) fn key_set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

pub(crate) fn audience(text: &str) -> Audience {
    Audience::parse(text).unwrap()
}

/// The pod that [`claims`] speak of.
pub(crate) fn pod() -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: Namespace::parse("payments").unwrap(),
        pod_name: PodName::parse("web-0").unwrap(),
        pod_uid: PodUid::parse("uid-1").unwrap(),
        service_account: ServiceAccountName::parse("checkout").unwrap(),
        node: NodeName::parse("node-1").unwrap(),
    }
}

/// What kube-apiserver writes into a pod-bound token.
pub(crate) fn claims(audience: &str) -> Value {
    json!({
        "iss": ISSUER, "sub": "system:serviceaccount:payments:checkout", "aud": [audience],
        "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 540,
        "jti": "0b8b8a0e-0e55-4c3a-9d55-1f6a5c1d2e3f",
        "kubernetes.io": {
            "namespace": "payments",
            "pod": {"name": "web-0", "uid": "uid-1"},
            "serviceaccount": {"name": "checkout", "uid": "sa-uid-1"},
            "node": {"name": "node-1", "uid": "node-uid-1"},
            "warnafter": NOW + 60
        }
    })
}

/// Kubelet's map with one token.
pub(crate) fn token_map(audience: &str, token: &SecretString) -> Vec<u8> {
    json!({ audience: {"token": token.expose(), "expirationTimestamp": "2027-01-15T08:10:00Z"} })
        .to_string()
        .into_bytes()
}
