//! Secret values: wiped when dropped, impossible to print, copied only by name.
//!
//! Invariant: no type here has `Debug`, `Display`, `Clone` or `Serialize`, so a value can't reach a
//! log, an error or a journal by accident. Every reader is found by grepping for `expose`.

use zeroize::{Zeroize, Zeroizing};

/// Bytes of a secret value.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes ownership; the caller keeps no copy.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A secret that is text: a bearer token, a role's login credential.
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes ownership; the caller keeps no copy.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Bytes that did not turn out to be UTF-8; they are wiped, not returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8 text")]
pub struct NotText;

impl TryFrom<SecretBytes> for SecretString {
    type Error = NotText;

    fn try_from(mut value: SecretBytes) -> Result<Self, NotText> {
        let bytes = std::mem::take(&mut *value.0);
        String::from_utf8(bytes).map(Self::new).map_err(|error| {
            error.into_bytes().zeroize();
            NotText
        })
    }
}

impl From<SecretString> for SecretBytes {
    fn from(mut value: SecretString) -> Self {
        Self::new(std::mem::take(&mut *value.0).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_way_through_bytes() {
        let bytes = SecretBytes::from(SecretString::new("s3cret".to_owned()));
        assert_eq!(bytes.expose(), b"s3cret");
        assert_eq!(bytes.len(), 6);
        let text = SecretString::try_from(bytes).expect("valid UTF-8");
        assert_eq!(text.expose(), "s3cret");
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        assert_eq!(SecretString::try_from(SecretBytes::new(vec![0xff])).err(), Some(NotText));
    }
}
