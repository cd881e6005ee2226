//! The pod's tokens as kubelet sends them, and who may be believed by them.
//!
//! Invariant: a token lives in wiped memory and only the one for the store's audience is kept. Nothing of a
//! token is in an error. Called by the volumes' manager with the bytes of a request.

mod claims;
mod keys;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::Error as _};
use sotto_core::identity::Audience;
use sotto_core::secret::SecretString;

pub use keys::KeyFault;
pub use source::{FetchKeys, FileKeys, HttpsKeys, Keys, KeysError, UrlKeys};
pub use verify::{TokenVerifier, VerifiedToken, VerifyError};

/// Most audiences that one CSIDriver may ask tokens for.
const MAX_TOKENS: usize = 32;

/// What kubelet sent as `serviceAccount.tokens`: one token an audience.
pub struct TokenMap(Vec<(Audience, SecretString)>);

/// Why there is no token to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenMapError {
    /// Nothing came.
    #[error("kubelet sent no token of the pod: the CSIDriver object needs tokenRequests")]
    Absent,
    /// Not kubelet's JSON.
    #[error("kubelet's tokens are not a JSON map of audience to token")]
    NotAMap,
    /// None for the store.
    #[error(
        "kubelet sent no token for audience {audience}, only for {sent}: add {audience} to the \
         CSIDriver's tokenRequests"
    )]
    NoToken {
        /// The store's audience.
        audience: Audience,
        /// The audiences that came.
        sent: String,
    },
}

impl TokenMap {
    /// Parses kubelet's JSON. `expirationTimestamp` isn't read: the verified `exp` decides.
    ///
    /// # Errors
    /// The map is absent, or isn't one. Never says what stood in it.
    pub fn parse(json: &[u8]) -> Result<Self, TokenMapError> {
        if json.is_empty() {
            return Err(TokenMapError::Absent);
        }
        serde_json::from_slice(json).map_err(|_| TokenMapError::NotAMap)
    }

    /// The token for one audience; the others are wiped.
    ///
    /// # Errors
    /// There is none for it.
    pub fn take(self, audience: &Audience) -> Result<SecretString, TokenMapError> {
        if self.0.is_empty() {
            return Err(TokenMapError::Absent);
        }
        let sent =
            self.0.iter().map(|(audience, _)| audience.as_str()).collect::<Vec<_>>().join(", ");
        self.0
            .into_iter()
            .find_map(|(one, token)| (one == *audience).then_some(token))
            .ok_or_else(|| TokenMapError::NoToken { audience: audience.clone(), sent })
    }
}

impl<'de> Deserialize<'de> for TokenMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TokenMapVisitor).map(Self)
    }
}

struct TokenMapVisitor;

impl<'de> Visitor<'de> for TokenMapVisitor {
    type Value = Vec<(Audience, SecretString)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of audience to token")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tokens = Vec::new();
        while let Some((audience, entry)) = map.next_entry::<String, Entry>()? {
            // The empty audience is the API server's own: no store can be meant by it.
            if audience.is_empty() {
                continue;
            }
            let audience = Audience::parse(audience).map_err(A::Error::custom)?;
            if tokens.len() == MAX_TOKENS || tokens.iter().any(|(one, _)| *one == audience) {
                return Err(A::Error::custom("too many tokens, or two for one audience"));
            }
            tokens.push((audience, entry.token.0));
        }
        Ok(tokens)
    }
}

#[derive(Deserialize)]
struct Entry {
    token: Token,
}

struct Token(SecretString);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(de::Error::custom("an empty token"));
        }
        Ok(Self(SecretString::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn audience(text: &str) -> Audience {
        Audience::parse(text).unwrap()
    }

    #[test]
    fn the_token_for_the_stores_audience_is_taken() {
        let json = br#"{"bao":{"token":"one","expirationTimestamp":"2026-11-25T00:00:00Z"},
                        "":{"token":"api"},"vault":{"token":"two"}}"#;
        let token = TokenMap::parse(json).unwrap().take(&audience("vault")).ok().unwrap();
        assert_eq!(token.expose(), "two");
    }

    #[test]
    fn an_audience_that_kubelet_sent_no_token_for_is_named() {
        let tokens =
            TokenMap::parse(br#"{"a":{"token":"canary"},"b":{"token":"canary"}}"#).unwrap();
        let error = tokens.take(&audience("bao")).err().unwrap().to_string();
        assert!(error.contains("audience bao, only for a, b") && !error.contains("canary"));
    }

    #[test]
    fn no_tokens_at_all_says_what_to_do() {
        assert_eq!(TokenMap::parse(b"").err(), Some(TokenMapError::Absent));
        let error = TokenMap::parse(b"{}").unwrap().take(&audience("bao")).err();
        assert_eq!(error, Some(TokenMapError::Absent));
    }

    #[test]
    fn what_is_not_kubelets_map_is_refused_without_repeating_it() {
        for json in [
            "[]",
            "\"canary\"",
            r#"{"a":"canary"}"#,
            r#"{"a":{"token":7}}"#,
            r#"{"a":{"token":""}}"#,
            r#"{"a":{}}"#,
            r#"{"a b":{"token":"canary"}}"#,
            r#"{"a":{"token":"x"},"a":{"token":"canary"}}"#,
            r#"{"a":{"token":"canary""#,
        ] {
            let error = TokenMap::parse(json.as_bytes()).err().unwrap();
            assert_eq!(error, TokenMapError::NotAMap, "{json}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    fn more_tokens_than_a_driver_asks_for_are_refused() {
        let many: Vec<_> =
            (0..=MAX_TOKENS).map(|n| format!("\"a{n}\":{{\"token\":\"t\"}}")).collect();
        let json = format!("{{{}}}", many.join(","));
        assert_eq!(TokenMap::parse(json.as_bytes()).err(), Some(TokenMapError::NotAMap));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_map_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = TokenMap::parse(&bytes);
        }
    }
}
