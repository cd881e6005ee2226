//! Versions of values that the store doesn't number.
//!
//! Invariant: a version is a keyed digest, since a plain one of a short secret, in a status object or in the driver's
//! memory, would give it away to whoever guesses. The key comes from the client key that this agent shows to the
//! store: the next agent has the same, so that it knows what hasn't changed; the driver, which keeps versions for it,
//! has never seen it. Without a client key, or with another one, everything counts as changed once.

use aws_lc_rs::{hmac, rand};

use crate::http::TlsFiles;

/// No other key is derived from a client key.
const PURPOSE: &[u8] = b"sotto: versions of values, 1";

/// The key for this store. Reads the client key's file.
pub(super) fn key(tls: &TlsFiles) -> hmac::Key {
    match tls.client_secret() {
        Some(secret) => {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, PURPOSE).as_ref())
        }
        None => random(),
    }
}

fn random() -> hmac::Key {
    hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
        .expect("the system's random source, or no TLS would work either")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn files(key: Option<&std::path::Path>) -> TlsFiles {
        let client_key = key.map(ToOwned::to_owned);
        TlsFiles {
            ca: PathBuf::from("/ca.pem").into(),
            client_certificate: None,
            client_key,
            server_name: None,
        }
    }

    fn version(files: &TlsFiles) -> Vec<u8> {
        hmac::sign(&key(files), b"a value").as_ref().to_vec()
    }

    #[test]
    fn the_next_process_with_the_same_client_key_makes_the_same_versions_and_nobody_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls.key");
        std::fs::write(&path, "one").unwrap();
        let first = version(&files(Some(&path)));
        assert_eq!(first, version(&files(Some(&path))));
        assert_ne!(
            first,
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"one"), b"a value").as_ref()
        );
        std::fs::write(&path, "two").unwrap();
        assert_ne!(first, version(&files(Some(&path))));
        assert_ne!(version(&files(None)), version(&files(None)), "there is nothing to share");
    }
}
