//! Verifies a pod's token offline, before anything is sent to a store.
//!
//! Invariant: nothing that a token of somebody else says is believed before its signature was verified with a key
//! of the issuer, by the one algorithm that the key's own entry names; every claim that a decision needs must be
//! there. jsonwebtoken 11.1 verifies the signature only: its checks of claims pass tokens without `aud`,
//! with a numeric one or with a list as `iss`, know nothing of `crit`, and can't be given a clock.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;
use sotto_core::clock::Clock;
use sotto_core::identity::{Audience, WorkloadIdentity};
use sotto_core::secret::SecretString;

use super::claims::Claims;
use super::keys::{Key, KeyFault};
use super::source::{KeyError, Keys, KeysError};

/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Most of a token's text that a message repeats: an algorithm's or a key's name.
const MAX_NAME_CHARS: usize = 64;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not three parts of base64 JSON.
    #[error("the pod's token is not a signed JSON web token")]
    NotAToken,
    /// Over 16 KiB.
    #[error("the pod's token has {0} bytes: at most {MAX_TOKEN_BYTES}")]
    TooLong(usize),
    /// `alg: none`.
    #[error("the pod's token is not signed (alg none)")]
    NotSigned,
    /// `alg: HS256` and the like.
    #[error("the pod's token is signed with a shared key (alg {0}): public-key signatures only")]
    SharedKey(String),
    /// ES512 and what nobody knows.
    #[error("the pod's token is signed by algorithm {0:?}, which is not supported")]
    UnsupportedAlgorithm(String),
    /// A header that must be understood.
    #[error("the pod's token has a \"crit\" header, which this version doesn't understand")]
    Critical,
    /// No `kid`.
    #[error("the pod's token does not name its key (kid)")]
    NoKeyId,
    /// The issuer doesn't publish the key.
    #[error("the pod's token is signed with key {0:?}, which the issuer doesn't publish")]
    UnknownKey(String),
    /// The issuer publishes it, and it must not be used.
    #[error("the pod's token is signed with key {kid:?}, which can't be used: {fault}")]
    UnusableKey {
        /// The key's id.
        kid: String,
        /// Why.
        fault: KeyFault,
    },
    /// The issuer's keys are not at hand.
    #[error("the issuer's keys are not known: {0}")]
    Keys(#[from] KeysError),
    /// The token wants another algorithm than the key is for.
    #[error("the pod's token is signed by {said:?}, its key is for {wanted:?} only")]
    Algorithm {
        /// The token's.
        said: String,
        /// The key's.
        wanted: Algorithm,
    },
    /// The signature is wrong.
    #[error("the pod's token has a wrong signature")]
    Signature,
    /// A claim isn't there.
    #[error("the pod's token has no claim {0}")]
    MissingClaim(&'static str),
    /// A claim has another type.
    #[error("the pod's token has a claim {0} of the wrong type")]
    MalformedClaim(&'static str),
    /// Another issuer.
    #[error("the pod's token was not issued by {wanted} (tokens.issuer)")]
    Issuer {
        /// The configured one.
        wanted: String,
    },
    /// For somebody else.
    #[error(
        "the pod's token is not for audience {wanted}: compare the store's audience with the CSIDriver's tokenRequests"
    )]
    Audience {
        /// The store's.
        wanted: Audience,
    },
    /// Too old.
    #[error("the pod's token expired {seconds} s ago: if it is fresh, compare the node's clock")]
    Expired {
        /// How long ago.
        seconds: u64,
    },
    /// Too young.
    #[error("the pod's token is not valid before {seconds} s from now: compare the node's clock")]
    NotYetValid {
        /// In how long it will be.
        seconds: u64,
    },
    /// Another namespace's.
    #[error("the pod's token belongs to another namespace than the volume's pod")]
    Namespace,
    /// Another service account's.
    #[error("the pod's token belongs to another service account than the volume's pod")]
    ServiceAccount,
    /// Another pod's, by name.
    #[error("the pod's token belongs to a pod of another name than the volume's")]
    PodName,
    /// Another pod's, by uid.
    #[error("the pod's token belongs to a pod of another uid than the volume's")]
    PodUid,
    /// Another node's.
    #[error("the pod's token belongs to a pod on another node")]
    Node,
    /// `sub` and the claims of Kubernetes disagree.
    #[error("the pod's token has a subject other than its service account")]
    Subject,
}

/// A token that belongs to the volume's pod and is valid now.
pub struct VerifiedToken {
    /// The token itself.
    pub jwt: SecretString,
    /// `exp`, in seconds since 1970.
    pub expires: u64,
}

/// Verifies pods' tokens.
pub struct TokenVerifier {
    signatures: Signatures,
    leeway: Duration,
    clock: Arc<dyn Clock>,
}

/// Who vouches for what a token says.
enum Signatures {
    /// An issuer: the token came from somebody else, over kubelet and the driver.
    VerifiedHere { keys: Keys, issuer: String },
    /// Nobody here: the token is this process's own, out of a file that kubelet wrote into its container. What
    /// it says is compared so that a mistake is told early and in words; the store verifies the signature
    /// before it gives anything.
    LeftToTheStore,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Its presence counts, whatever it holds.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl TokenVerifier {
    /// Tokens must be issued by `issuer`; clocks may differ by `leeway`.
    #[must_use]
    pub fn new(keys: Keys, issuer: String, leeway: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { signatures: Signatures::VerifiedHere { keys, issuer }, leeway, clock }
    }

    /// For a process that serves its own pod with its own token: claims and times are compared as ever, the
    /// signature is left to the store. Never for a token that somebody else brought.
    #[must_use]
    pub fn of_own_token(leeway: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { signatures: Signatures::LeftToTheStore, leeway, clock }
    }

    /// Verifies that `jwt` was issued for `audience` to `pod` and is valid now.
    ///
    /// # Errors
    /// The first reason not to believe it; the token is wiped.
    pub async fn verify(
        &self,
        jwt: SecretString,
        audience: &Audience,
        pod: &WorkloadIdentity,
    ) -> Result<VerifiedToken, VerifyError> {
        let header = read_header(jwt.expose())?;
        let claims = match &self.signatures {
            Signatures::VerifiedHere { keys, issuer } => {
                let key = named_key(keys, &header).await?;
                let claims = Claims::read(&verified_claims(jwt.expose(), &header, &key)?)?;
                claims.require_issuer(issuer)?;
                claims
            }
            Signatures::LeftToTheStore => Claims::read(&unverified_claims(jwt.expose())?)?,
        };
        claims.require_current(audience, self.clock.unix_seconds(), self.leeway)?;
        claims.require_pod(pod)?;
        Ok(VerifiedToken { jwt, expires: claims.expires })
    }
}

async fn named_key(keys: &Keys, header: &Header) -> Result<Arc<Key>, VerifyError> {
    let kid = header.kid.as_deref().ok_or(VerifyError::NoKeyId)?;
    keys.key(kid).await.map_err(|error| match error {
        KeyError::Unknown => VerifyError::UnknownKey(printable(kid)),
        KeyError::Unusable(fault) => VerifyError::UnusableKey { kid: printable(kid), fault },
        KeyError::Unavailable(error) => VerifyError::Keys(error),
    })
}

fn read_header(jwt: &str) -> Result<Header, VerifyError> {
    if jwt.len() > MAX_TOKEN_BYTES {
        return Err(VerifyError::TooLong(jwt.len()));
    }
    let mut parts = jwt.split('.');
    let header = parts.next().filter(|_| parts.clone().count() == 2);
    let header = header.ok_or(VerifyError::NotAToken)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| VerifyError::NotAToken)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| VerifyError::NotAToken)?;
    if header.crit {
        return Err(VerifyError::Critical);
    }
    match header.alg.as_str() {
        none if none.eq_ignore_ascii_case("none") => Err(VerifyError::NotSigned),
        shared if shared.starts_with("HS") => Err(VerifyError::SharedKey(printable(shared))),
        other if other.parse::<Algorithm>().is_err() => {
            Err(VerifyError::UnsupportedAlgorithm(printable(other)))
        }
        _ => Ok(header),
    }
}

/// The claims, once the signature was verified by the key's own algorithm.
fn verified_claims(jwt: &str, header: &Header, key: &Key) -> Result<Value, VerifyError> {
    if header.alg.parse() != Ok(key.algorithm) {
        let said = printable(&header.alg);
        return Err(VerifyError::Algorithm { said, wanted: key.algorithm });
    }
    // One algorithm: with two families in the list jsonwebtoken refuses every token.
    let mut validation = Validation::new(key.algorithm);
    // All of these are checked by `Claims`.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    match jsonwebtoken::decode::<Value>(jwt, &key.decoding, &validation) {
        Ok(token) => Ok(token.claims),
        Err(error) => match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Err(VerifyError::Signature),
            _ => Err(VerifyError::NotAToken),
        },
    }
}

/// What the token says, whoever signed it.
fn unverified_claims(jwt: &str) -> Result<Value, VerifyError> {
    let claims = jwt.split('.').nth(1).ok_or(VerifyError::NotAToken)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| VerifyError::NotAToken)?;
    serde_json::from_slice(&claims).map_err(|_| VerifyError::NotAToken)
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests;
