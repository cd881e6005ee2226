//! The pod's token: read from the file that kubelet keeps fresh, checked against the pod, and handed to the volume.
//!
//! Invariant: the token is in wiped memory and leaves this process for the store alone; a file that is missing or
//! too old is waited for, within a deadline, since kubelet is about to write it; a token of another pod is refused
//! at once. Nothing of a token is in a message.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sotto_core::clock::Clock;
use sotto_core::identity::{Audience, WorkloadIdentity};
use sotto_core::secret::SecretString;
use sotto_handoff::message::Code;
use sotto_handoff::refusal::Refusal;
use sotto_volume::token::{TokenVerifier, VerifyError};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Longest token, in bytes; a JSON web token's are one or two KiB.
const MAX_TOKEN_BYTES: u64 = 16 << 10;
/// How often a file that can't be used yet is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How far clocks may differ.
pub(crate) const LEEWAY: Duration = Duration::from_secs(10);

/// Why there is no token to log in with.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error("the pod's token can't be read from {}: {source}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{source} ({})", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
}

impl TokenError {
    /// Whether kubelet may be about to write a better one.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreadable { .. } => true,
            Self::Refused { source, .. } => {
                matches!(source, VerifyError::Expired { .. } | VerifyError::NotYetValid { .. })
            }
        }
    }

    fn refusal(&self, waited: Duration) -> Refusal {
        let code = match self {
            Self::Unreadable { .. } => Code::Unavailable,
            Self::Refused { .. } => Code::Unauthenticated,
        };
        let message = if self.passes() {
            let waited = humantime::format_duration(Duration::from_secs(waited.as_secs()));
            format!("{self}; kubelet wrote no fresh one in {waited}")
        } else {
            self.to_string()
        };
        Refusal::new(code, &message)
    }
}

/// Changes whenever the file's content may have: kubelet swaps the directory that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(file: Metadata) -> Self {
        Self {
            inode: (file.dev(), file.ino()),
            bytes: file.len(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The token's file, for one pod and one store.
pub struct OwnToken {
    path: PathBuf,
    audience: Audience,
    pod: WorkloadIdentity,
    verifier: TokenVerifier,
}

/// A token as kubelet's map of tokens, which is what volumes take.
pub type Tokens = Zeroizing<Vec<u8>>;

impl OwnToken {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(
        path: PathBuf,
        audience: Audience,
        pod: WorkloadIdentity,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let verifier = TokenVerifier::of_own_token(LEEWAY, clock);
        Self { path, audience, pod, verifier }
    }

    /// The token as it is now.
    ///
    /// # Errors
    /// It can't be read, or isn't one of this pod for this store.
    pub async fn now(&self) -> Result<Tokens, TokenError> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let read = read.unwrap_or_else(|ended| Err(io::Error::other(ended)));
        let token =
            read.map_err(|source| TokenError::Unreadable { path: self.path.clone(), source })?;
        let verified = self.verifier.verify(token, &self.audience, &self.pod).await;
        let refused = |source| TokenError::Refused { path: self.path.clone(), source };
        let verified = verified.map_err(refused)?;
        Ok(as_map(&self.audience, &verified.jwt))
    }

    /// The token, once it is good; waits for it until then.
    ///
    /// # Errors
    /// It isn't by then, or never will be.
    pub async fn by(&self, end: Instant) -> Result<Tokens, Refusal> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let error = match self.now().await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let again = Instant::now() + LOOK_AGAIN;
            if !error.passes() || again > end {
                return Err(error.refusal(begun.elapsed()));
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "waiting for a fresh token");
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// What the file is like; `None` if it isn't there.
    pub(crate) async fn stamp(&self) -> Option<Stamp> {
        let path = self.path.clone();
        let stamp = tokio::task::spawn_blocking(move || std::fs::metadata(path).map(Stamp::from));
        stamp.await.ok()?.ok()
    }
}

fn read(path: &Path) -> io::Result<SecretString> {
    // Of its final size at once: nothing is left where it was smaller.
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN_BYTES as usize + 1));
    File::open(path)?.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_TOKEN_BYTES} bytes")));
    }
    match text.trim() {
        "" => Err(io::Error::other("it is empty")),
        token => Ok(SecretString::new(token.to_owned())),
    }
}

fn as_map(audience: &Audience, token: &SecretString) -> Tokens {
    let quoted = |text: &str| {
        // A text can always be written.
        Zeroizing::new(serde_json::to_string(text).unwrap_or_default())
    };
    let (audience, token) = (quoted(audience.as_str()), quoted(token.expose()));
    let parts = ["{", &audience, ":{\"token\":", &token, "}}"];
    let mut json = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| json.extend_from_slice(part.as_bytes()));
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_volume::token::TokenMap;

    #[test]
    fn the_map_is_one_that_volumes_read_whatever_the_audience_is() {
        let audience = Audience::parse(r#"https://x/"\"#).unwrap();
        let map = as_map(&audience, &SecretString::new("a.b.c".to_owned()));
        let token = TokenMap::parse(&map).unwrap().take(&audience).ok().unwrap();
        assert_eq!(token.expose(), "a.b.c");
    }

    #[test]
    fn only_a_whole_token_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, " a.b.c\n").unwrap();
        assert_eq!(read(file.path()).ok().unwrap().expose(), "a.b.c");
        for bad in [" \n".to_owned(), "x".repeat(20_000)] {
            std::fs::write(&file, bad).unwrap();
            assert!(read(file.path()).is_err());
        }
    }
}
