//! Keys from a file, read again when it changes: a ConfigMap is replaced by renaming a link, so the inode
//! behind the path changes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{KEYS_DEADLINE, KeyError, KeysError, find, parse};
use crate::token::keys::{Key, KeySet, MAX_SET_BYTES};

/// A key set in a file.
pub struct FileKeys {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the content that was read last, good or not.
    stamp: Option<Stamp>,
    good: Option<Arc<KeySet>>,
    fault: Option<KeysError>,
}

/// Changes whenever the content may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl FileKeys {
    /// Reads `path` at the first look-up.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    pub(super) async fn check(&self) -> Result<usize, KeysError> {
        let mut state = self.state.lock().await;
        let keys = self.refreshed(&mut state).await?;
        state.fault.clone().map_or(Ok(keys.usable()), Err)
    }

    pub(super) async fn key(&self, kid: &str) -> Result<Arc<Key>, KeyError> {
        let look_up = async {
            let mut state = self.state.lock().await;
            self.refreshed(&mut state).await
        };
        let keys = tokio::time::timeout(KEYS_DEADLINE, look_up)
            .await
            .unwrap_or_else(|_| Err(KeysError::Deadline { from: self.from() }))
            .map_err(KeyError::Unavailable)?;
        find(&keys, kid)
    }

    /// The keys of the file as it is now; those it had before, while it can't be read.
    async fn refreshed(&self, state: &mut State) -> Result<Arc<KeySet>, KeysError> {
        if let Err(fault) = self.read_if_changed(state).await {
            if state.fault.as_ref() != Some(&fault) {
                tracing::warn!(error = %fault, "the issuer's keys are not read again");
            }
            state.fault = Some(fault);
        }
        match (&state.good, &state.fault) {
            (Some(keys), _) => Ok(Arc::clone(keys)),
            (None, Some(fault)) => Err(fault.clone()),
            (None, None) => Err(self.unreadable("nothing was read".to_owned())),
        }
    }

    async fn read_if_changed(&self, state: &mut State) -> Result<(), KeysError> {
        let unreadable = |error: io::Error| self.unreadable(error.to_string());
        let found = tokio::fs::metadata(&self.path).await.map_err(unreadable)?;
        let stamp = Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        if state.stamp == Some(stamp) {
            return Ok(());
        }
        if found.len() > MAX_SET_BYTES as u64 {
            return Err(self.unreadable(format!("it has more than {MAX_SET_BYTES} bytes")));
        }
        let json = tokio::fs::read(&self.path).await.map_err(unreadable)?;
        // Set first: a file that can't be used is read again only when it changes.
        state.stamp = Some(stamp);
        let keys = parse(&self.from(), &json)?;
        tracing::info!(file = %self.from(), keys = keys.usable(), "the issuer's keys were read");
        state.good = Some(Arc::new(keys));
        state.fault = None;
        Ok(())
    }

    fn unreadable(&self, reason: String) -> KeysError {
        KeysError::Unreadable { from: self.from(), reason }
    }

    fn from(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::{Signer, key_set};

    async fn known(keys: &FileKeys, kid: &str) -> Result<bool, KeysError> {
        match keys.key(kid).await {
            Ok(_) => Ok(true),
            Err(KeyError::Unknown | KeyError::Unusable(_)) => Ok(false),
            Err(KeyError::Unavailable(error)) => Err(error),
        }
    }

    #[tokio::test]
    async fn a_replaced_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        let keys = FileKeys::new(path.clone());
        assert!(matches!(known(&keys, "a").await, Err(KeysError::Unreadable { .. })));
        std::fs::write(&path, key_set(&[Signer::ec("a").jwk()])).unwrap();
        assert_eq!(known(&keys, "a").await, Ok(true));
        let next = directory.path().join("next");
        std::fs::write(&next, key_set(&[Signer::ec("b").jwk()])).unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_eq!(known(&keys, "b").await, Ok(true));
        assert_eq!(known(&keys, "a").await, Ok(false));
    }

    #[tokio::test]
    async fn keys_that_were_good_stay_while_the_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        std::fs::write(&path, key_set(&[Signer::ec("a").jwk()])).unwrap();
        let keys = FileKeys::new(path.clone());
        assert_eq!(keys.check().await, Ok(1));
        std::fs::write(&path, "torn").unwrap();
        assert_eq!(known(&keys, "a").await, Ok(true));
        assert!(matches!(keys.check().await, Err(KeysError::NotAKeySet { .. })));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(known(&keys, "a").await, Ok(true));
    }

    #[tokio::test]
    async fn a_file_without_usable_keys_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
        let error = FileKeys::new(path).check().await.unwrap_err().to_string();
        assert!(error.contains("jwks.json") && error.contains("no key that can verify"), "{error}");
    }
}
