//! Signing keys: RS256 and ES256, their JWKs, and the kid as Kubernetes computes it.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use aws_lc_rs::{digest, error::Unspecified};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A signature algorithm that Kubernetes signs tokens with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits: Kubernetes' default.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// Its name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// One signing key.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    pair: Pair,
    spki: Vec<u8>,
}

impl Key {
    pub(super) fn generate(algorithm: Algorithm) -> Result<Self, Unspecified> {
        let (pair, spki): (_, PublicKeyX509Der<'_>) = match algorithm {
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                let spki = pair.public_key().as_der()?;
                (Pair::Rsa(pair), spki)
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                let spki = pair.public_key().as_der()?;
                (Pair::Ec(pair), spki)
            }
        };
        let spki = spki.as_ref().to_vec();
        // Kubernetes: the SHA-256 of the key's SubjectPublicKeyInfo.
        let kid = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &spki));
        Ok(Self { algorithm, kid, pair, spki })
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Pair::Ec(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
        }
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.pair {
            Pair::Rsa(pair) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
                    .verify(message, signature)
            }
            Pair::Ec(pair) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key())
                .verify(message, signature),
        };
        verified.is_ok()
    }

    /// As the API server's `/openid/v1/jwks` shows it.
    pub(super) fn jwk(&self) -> Value {
        let (_, info) =
            SubjectPublicKeyInfo::from_der(&self.spki).expect("the key wrote it a moment ago");
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({"use": "sig", "kid": self.kid, "alg": self.algorithm.as_str()});
        match info.parsed().expect("RSA and EC keys are known to the parser") {
            PublicKey::RSA(key) => {
                jwk["kty"] = json!("RSA");
                jwk["n"] = json!(encode(without_leading_zeroes(key.modulus)));
                jwk["e"] = json!(encode(without_leading_zeroes(key.exponent)));
            }
            PublicKey::EC(point) => {
                // 0x04, then both coordinates.
                let (x, y) = point.data()[1..].split_at(32);
                jwk["kty"] = json!("EC");
                jwk["crv"] = json!("P-256");
                jwk["x"] = json!(encode(x));
                jwk["y"] = json!(encode(y));
            }
            other => unreachable!("only RSA and EC keys are made, not {other:?}"),
        }
        jwk
    }

    pub(super) fn public_pem(&self) -> String {
        let text = STANDARD.encode(&self.spki);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// The DER of the public key, as a forger would use it for HMAC.
    pub(super) fn public_der(&self) -> &[u8] {
        &self.spki
    }
}

fn without_leading_zeroes(bytes: &[u8]) -> &[u8] {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeroes..]
}
