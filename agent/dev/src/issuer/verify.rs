//! A token's verification, as a store or an API server does it. Ours, not the agents': see the crate's arrows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Issuer;

/// What OpenBao allows a token's times to be off by.
pub(crate) const STORE_LEEWAY: Duration = Duration::from_secs(150);

/// Why a token isn't believed. The text is OpenBao's, which the embedded store repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not three parts of base64url.
    #[error(
        "error verifying token signature: go-jose/go-jose: compact JWS format must have three parts"
    )]
    Format,
    /// No key of the issuer made this signature with this algorithm.
    #[error(
        "error verifying token signature: no known key successfully validated the token signature"
    )]
    Signature,
    /// Another issuer.
    #[error("invalid issuer (iss) claim")]
    Issuer,
    /// `exp` has passed or isn't there.
    #[error("invalid expiration time (exp) claim: token is expired")]
    Expired,
    /// `nbf` has not come.
    #[error("invalid not before (nbf) claim: token not yet valid")]
    NotYetValid,
    /// `iat` is in the future.
    #[error("invalid issued at (iat) claim: token issued in the future")]
    IssuedInTheFuture,
}

impl Issuer {
    /// The claims of a token that this issuer signed and that is valid now.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(&self, token: &str, leeway: Duration) -> Result<Value, VerifyError> {
        let (message, signature) = token.rsplit_once('.').ok_or(VerifyError::Format)?;
        let (header, claims) = message.split_once('.').ok_or(VerifyError::Format)?;
        let (header, claims) = (decode(header)?, decode(claims)?);
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| VerifyError::Format)?;
        // go-jose: no critical extension is understood, so any is refused.
        let key = header.get("crit").is_none().then(|| self.key_for(&header)).flatten();
        if !key.is_some_and(|key| key.verify(message.as_bytes(), &signature)) {
            return Err(VerifyError::Signature);
        }
        if claims["iss"] != self.name() {
            return Err(VerifyError::Issuer);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (now, leeway) = (i128::from(now), i128::from(leeway.as_secs()));
        let time = |name: &str| claims[name].as_i64().map(i128::from);
        if time("exp").is_none_or(|exp| exp + leeway < now) {
            return Err(VerifyError::Expired);
        }
        if time("nbf").is_some_and(|nbf| nbf - leeway > now) {
            return Err(VerifyError::NotYetValid);
        }
        if time("iat").is_some_and(|iat| iat - leeway > now) {
            return Err(VerifyError::IssuedInTheFuture);
        }
        Ok(claims)
    }
}

/// The `jti` of a token, unverified: tells tokens apart without keeping one.
#[must_use]
pub fn token_id(token: &str) -> Option<String> {
    let claims = decode(token.split('.').nth(1)?).ok()?;
    claims["jti"].as_str().map(str::to_owned)
}

fn decode(part: &str) -> Result<Value, VerifyError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| VerifyError::Format)?;
    serde_json::from_slice(&bytes).map_err(|_| VerifyError::Format)
}

/// The audiences of claims, whether `aud` is a list or one string.
pub(crate) fn audiences(claims: &Value) -> Vec<&str> {
    match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}
