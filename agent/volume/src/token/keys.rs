//! The issuer's public keys: a JSON Web Key Set, read strictly.
//!
//! Invariant: a key is usable only for the one algorithm that its own entry names, so that a token can't
//! choose how it is verified; symmetric keys, keys for encryption and keys that share an id are never
//! used. A key that can't be used doesn't hide the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// Largest key set that is read, in bytes.
pub(super) const MAX_SET_BYTES: usize = 256 << 10;
/// Most keys of a set.
const MAX_KEYS: usize = 256;

/// Why a key of the set is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// `kty: oct`: whoever verifies with it could sign with it.
    #[error("it is a shared key (kty oct)")]
    Shared,
    /// `use: enc`, or `key_ops` without `verify`.
    #[error("it is not for signatures (use, key_ops)")]
    NotForSignatures,
    /// A curve or algorithm that isn't served, such as ES512.
    #[error("its type, curve or algorithm is not supported")]
    Unsupported,
    /// `alg` can't be used with `kty` or `crv`.
    #[error("its alg does not fit its kty or crv")]
    Contradiction,
    /// Another key has the same `kid`.
    #[error("another key of the set has the same id")]
    SameId,
    /// Its numbers can't be read.
    #[error("its parameters can't be read")]
    Malformed,
}

/// A key with the only algorithm it is used for.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys by id.
#[derive(Default)]
pub(super) struct KeySet(BTreeMap<String, Result<Arc<Key>, KeyFault>>);

/// Not a key set at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("it is not a JSON web key set: {{\"keys\": [...]}}")]
    NotAKeySet,
    #[error("it has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("it has no key that can verify a token")]
    NoUsableKey,
}

impl KeySet {
    pub(super) fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| KeySetError::NotAKeySet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut known = BTreeMap::new();
        for entry in keys {
            // A key without an id can't be named by a token.
            let Some(kid) = entry.get("kid").and_then(Value::as_str) else { continue };
            match known.entry(kid.to_owned()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(read(entry).map(Arc::new));
                }
                Entry::Occupied(mut occupied) => {
                    *occupied.get_mut() = Err(KeyFault::SameId);
                }
            }
        }
        if known.values().all(Result::is_err) {
            return Err(KeySetError::NoUsableKey);
        }
        Ok(Self(known))
    }

    /// The key with this id; nothing if the set has none.
    pub(super) fn get(&self, kid: &str) -> Option<&Result<Arc<Key>, KeyFault>> {
        self.0.get(kid)
    }

    /// How many keys can verify.
    pub(super) fn usable(&self) -> usize {
        self.0.values().filter(|key| key.is_ok()).count()
    }
}

fn read(entry: &Value) -> Result<Key, KeyFault> {
    if entry.get("kty").and_then(Value::as_str) == Some("oct") {
        return Err(KeyFault::Shared);
    }
    let key: Jwk = serde_json::from_value(entry.clone()).map_err(|_| KeyFault::Malformed)?;
    if !is_for_signatures(&key.common) {
        return Err(KeyFault::NotForSignatures);
    }
    let algorithm = algorithm(&key, entry)?;
    let decoding = DecodingKey::from_jwk(&key).map_err(|_| KeyFault::Malformed)?;
    Ok(Key { algorithm, decoding })
}

fn is_for_signatures(common: &CommonParameters) -> bool {
    let usage = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations =
        common.key_operations.as_ref().is_none_or(|list| list.contains(&KeyOperations::Verify));
    usage && operations
}

/// The one algorithm of a key: what its `alg` says, if its type can do that; else what its type implies.
fn algorithm(key: &Jwk, entry: &Value) -> Result<Algorithm, KeyFault> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let possible: &[Algorithm] = match &key.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return Err(KeyFault::Unsupported),
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &[EdDSA],
        AlgorithmParameters::OctetKey(_) => return Err(KeyFault::Shared),
        _ => return Err(KeyFault::Unsupported),
    };
    match entry.get("alg") {
        None => Ok(possible[0]),
        Some(named) => {
            let named = named.as_str().ok_or(KeyFault::Malformed)?;
            let named: Algorithm = named.parse().map_err(|_| KeyFault::Unsupported)?;
            possible.contains(&named).then_some(named).ok_or(KeyFault::Contradiction)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::{self, Signer};
    use serde_json::json;

    fn fault(mut change: impl FnMut(&mut Value)) -> Option<KeyFault> {
        let good = Signer::ec("good");
        let mut entry = Signer::ec("k").jwk();
        change(&mut entry);
        let set = testing::key_set(&[good.jwk(), entry]);
        let set = KeySet::parse(&set).unwrap();
        assert!(set.get("good").unwrap().is_ok(), "one bad key hides the others");
        set.get("k").unwrap().as_ref().err().copied()
    }

    #[test]
    fn keys_that_must_not_verify_are_not_used() {
        assert_eq!(fault(|key| key["use"] = json!("enc")), Some(KeyFault::NotForSignatures));
        assert_eq!(fault(|key| key["key_ops"] = json!(["sign"])), Some(KeyFault::NotForSignatures));
        let shared = |key: &mut Value| *key = json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"});
        assert_eq!(fault(shared), Some(KeyFault::Shared));
        assert_eq!(fault(|key| key["alg"] = json!("RS256")), Some(KeyFault::Contradiction));
        assert_eq!(fault(|key| key["alg"] = json!("HS256")), Some(KeyFault::Contradiction));
        assert_eq!(fault(|key| key["alg"] = json!("ES512")), Some(KeyFault::Unsupported));
        assert_eq!(fault(|key| key["crv"] = json!("P-521")), Some(KeyFault::Unsupported));
        assert_eq!(fault(|key| key["x"] = json!("***")), Some(KeyFault::Malformed));
        assert_eq!(fault(|key| key["kid"] = json!("k")), None);
    }

    #[test]
    fn two_keys_with_one_id_are_both_unused() {
        let set = testing::key_set(&[
            Signer::ec("a").jwk(),
            Signer::ec("k").jwk(),
            Signer::ec("k").jwk(),
        ]);
        let set = KeySet::parse(&set).unwrap();
        assert_eq!(set.get("k").unwrap().as_ref().err(), Some(&KeyFault::SameId));
        assert_eq!(set.usable(), 1);
    }

    #[test]
    fn a_key_without_alg_gets_the_one_its_type_implies() {
        for (signer, wanted) in
            [(Signer::ec("k"), Algorithm::ES256), (Signer::rsa("k"), Algorithm::RS256)]
        {
            let mut entry = signer.jwk();
            entry.as_object_mut().unwrap().remove("alg");
            let set = KeySet::parse(&testing::key_set(&[entry])).unwrap();
            assert_eq!(set.get("k").unwrap().as_ref().ok().unwrap().algorithm, wanted);
        }
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for json in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert_eq!(KeySet::parse(json.as_bytes()).err(), Some(KeySetError::NotAKeySet));
        }
        for json in [r#"{"keys":[]}"#, r#"{"keys":[7]}"#] {
            assert_eq!(KeySet::parse(json.as_bytes()).err(), Some(KeySetError::NoUsableKey));
        }
        let many = testing::key_set(&vec![json!({}); MAX_KEYS + 1]);
        assert_eq!(KeySet::parse(&many).err(), Some(KeySetError::TooManyKeys));
    }
}
