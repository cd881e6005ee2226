//! Where the issuer's keys come from: a file, or the issuer over TLS.
//!
//! Invariant: a look-up ends within [`KEYS_DEADLINE`]; keys that were good stay in use while their source
//! can't be read; an unknown key id makes the source be read again, but not as often as tokens come.

mod file;
mod https;
mod url;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use file::FileKeys;
pub use https::HttpsKeys;
pub use url::{FetchKeys, UrlKeys};

use super::keys::{Key, KeyFault, KeySet, KeySetError, MAX_SET_BYTES};

/// How long a look-up may take, a fetch included.
const KEYS_DEADLINE: Duration = Duration::from_secs(5);

/// A future that a trait object gives.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the issuer's keys are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The file or the address can't be read.
    #[error("{from} can't be read: {reason}")]
    Unreadable {
        /// The file or address.
        from: String,
        /// Why.
        reason: String,
    },
    /// It was read, and isn't a key set.
    #[error("{from} can't be used: {reason}")]
    NotAKeySet {
        /// The file or address.
        from: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("{from} was not read within 5 s")]
    Deadline {
        /// The file or address.
        from: String,
    },
}

/// Why there is no key of an id.
pub(super) enum KeyError {
    Unknown,
    Unusable(KeyFault),
    Unavailable(KeysError),
}

/// The issuer's keys.
pub enum Keys {
    /// From a file that the administrator provides.
    File(FileKeys),
    /// From the issuer's own address.
    Url(UrlKeys),
}

impl Keys {
    /// Reads the source once, for a check at start. Returns how many keys can verify.
    ///
    /// # Errors
    /// The keys can't be read, or none of them can be used.
    pub async fn check(&self) -> Result<usize, KeysError> {
        match self {
            Self::File(file) => file.check().await,
            Self::Url(url) => url.check().await,
        }
    }

    pub(super) async fn key(&self, kid: &str) -> Result<Arc<Key>, KeyError> {
        match self {
            Self::File(file) => file.key(kid).await,
            Self::Url(url) => url.key(kid).await,
        }
    }
}

fn parse(from: &str, json: &[u8]) -> Result<KeySet, KeysError> {
    let refused = |reason: String| KeysError::NotAKeySet { from: from.to_owned(), reason };
    if json.len() > MAX_SET_BYTES {
        return Err(refused(format!("it has more than {MAX_SET_BYTES} bytes")));
    }
    KeySet::parse(json).map_err(|error: KeySetError| refused(error.to_string()))
}

fn find(keys: &KeySet, kid: &str) -> Result<Arc<Key>, KeyError> {
    match keys.get(kid) {
        Some(Ok(key)) => Ok(Arc::clone(key)),
        Some(Err(fault)) => Err(KeyError::Unusable(*fault)),
        None => Err(KeyError::Unknown),
    }
}
