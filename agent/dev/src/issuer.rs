//! An issuer of pod tokens: keys, discovery, JWKS, TokenReview, tokens of Kubernetes' exact shape.
//!
//! Invariant: its host ends in `.invalid` (RFC 2606), which no real cluster's does and which agents refuse
//! unless they were told that they are in development.

mod key;
mod review;
mod serve;
mod token;
mod verify;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};

pub use key::Algorithm;
pub use review::API_AUDIENCE;
pub use serve::{IssuerServer, ServeError};
pub use token::{PodTokenSpec, Signature};
pub(crate) use verify::{STORE_LEEWAY, audiences};
pub use verify::{VerifyError, token_id};

use key::Key;

/// The issuer of the demo.
pub const DEMO_ISSUER: &str = "https://issuer.sotto-dev.invalid";

/// An issuer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The name could be mistaken for a real cluster's.
    #[error("{0:?} is no issuer for development: write https:// and a host that ends in .invalid")]
    NotInvalid(String),
    /// No key.
    #[error("no signing key could be made")]
    Key(#[from] aws_lc_rs::error::Unspecified),
}

/// A handle to one issuer; clones share keys.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    name: String,
    /// The newest of an algorithm signs.
    keys: RwLock<Vec<Arc<Key>>>,
    stranger: Key,
    forgotten_pods: RwLock<BTreeSet<String>>,
}

impl Issuer {
    /// An issuer with one key of each algorithm.
    ///
    /// # Errors
    /// The name isn't `https://<host>.invalid[...]`, or no key could be made.
    pub fn new(name: &str) -> Result<Self, IssuerError> {
        Self::with_keys(name, &[Algorithm::Es256, Algorithm::Rs256])
    }

    /// An issuer with these keys only: an RSA key takes a while to find.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_keys(name: &str, algorithms: &[Algorithm]) -> Result<Self, IssuerError> {
        let host = name.strip_prefix("https://").and_then(|rest| rest.split(['/', ':']).next());
        if !host.is_some_and(|host| host.ends_with(".invalid")) {
            return Err(IssuerError::NotInvalid(name.to_owned()));
        }
        let keys = algorithms.iter().map(|algorithm| Key::generate(*algorithm).map(Arc::new));
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            keys: RwLock::new(keys.collect::<Result<_, _>>()?),
            stranger: Key::generate(Algorithm::Es256)?,
            forgotten_pods: RwLock::default(),
        })))
    }

    /// `iss`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A token.
    ///
    /// # Panics
    /// The issuer has no key of the algorithm.
    #[must_use]
    pub fn mint(&self, spec: &PodTokenSpec) -> String {
        let newest = |keys: &[Arc<Key>]| {
            keys.iter().rev().find(|key| key.algorithm == spec.algorithm).cloned()
        };
        let key = self.keys(newest).expect("an issuer mints only with algorithms that it has");
        spec.sign(self.name(), &key, &self.0.stranger)
    }

    /// The public keys, as `/openid/v1/jwks` shows them.
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.keys(|keys| json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}))
    }

    /// Writes the JWKS into a file, replaced whole.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn write_jwks(&self, path: &Path) -> std::io::Result<()> {
        crate::pki::write_file(path, &self.jwks().to_string(), 0o644)
    }

    /// The public keys, PEM.
    #[must_use]
    pub fn public_keys_pem(&self) -> Vec<String> {
        self.keys(|keys| keys.iter().map(|key| key.public_pem()).collect())
    }

    /// A new key signs from now on; the old ones stay known. Returns its kid.
    ///
    /// # Errors
    /// No key could be made.
    pub fn rotate(&self, algorithm: Algorithm) -> Result<String, IssuerError> {
        let key = Key::generate(algorithm)?;
        let kid = key.kid.clone();
        self.0.keys.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(key));
        Ok(kid)
    }

    /// Forgets every key but the newest of each algorithm: tokens that they signed aren't believed any more.
    pub fn retire_old_keys(&self) {
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut newest = BTreeSet::new();
        let kept: Vec<_> =
            keys.drain(..).rev().filter(|key| newest.insert(key.algorithm)).collect();
        keys.extend(kept.into_iter().rev());
    }

    /// The pod is gone: TokenReviews of its tokens are answered no, offline checks can't see it.
    pub fn forget_pod(&self, uid: &str) {
        let mut pods = self.0.forgotten_pods.write().unwrap_or_else(PoisonError::into_inner);
        pods.insert(uid.to_owned());
    }

    fn is_forgotten(&self, uid: &str) -> bool {
        self.0.forgotten_pods.read().unwrap_or_else(PoisonError::into_inner).contains(uid)
    }

    fn algorithms(&self) -> Vec<&'static str> {
        self.keys(|keys| {
            keys.iter()
                .map(|key| key.algorithm.as_str())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        })
    }

    /// The key that a header names, if its algorithm is the key's.
    fn key_for(&self, header: &Value) -> Option<Arc<Key>> {
        let fits =
            |key: &&Arc<Key>| header["kid"] == key.kid && header["alg"] == key.algorithm.as_str();
        self.keys(|keys| keys.iter().find(fits).cloned())
    }

    fn keys<T>(&self, read: impl FnOnce(&[Arc<Key>]) -> T) -> T {
        read(&self.0.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
