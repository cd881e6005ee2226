//! A namespace within a store (`X-Vault-Namespace`), not of Kubernetes.

use std::fmt;

/// A namespace's path, without slashes around it, e.g. `team-a/billing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreNamespace(String);

/// A text that can't be a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a namespace: write words of letters, digits, - and _ with single slashes between")]
pub struct NamespaceError;

impl StoreNamespace {
    /// Parses it, with or without slashes around.
    ///
    /// # Errors
    /// Anything but words with single slashes between, at most 256 bytes.
    pub fn parse(text: &str) -> Result<Self, NamespaceError> {
        let path = text.trim_matches('/');
        let word = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let valid = path.len() <= 256 && path.split('/').all(word);
        if valid { Ok(Self(path.to_owned())) } else { Err(NamespaceError) }
    }

    /// Whether it is `outer` or lies beneath it.
    #[must_use]
    pub fn is_within(&self, outer: &Self) -> bool {
        let rest = self.0.strip_prefix(outer.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_namespace_and_those_beneath_are_within() {
        let outer = StoreNamespace::parse("team-a/").unwrap();
        let within = |text: &str| StoreNamespace::parse(text).unwrap().is_within(&outer);
        assert!(within("team-a") && within("/team-a/billing"));
        assert!(!within("team-ab") && !within("team-b"));
    }

    #[test]
    fn what_could_be_another_header_or_path_is_refused() {
        for text in ["", "/", "a//b", "a\nb", "../b", "a b"] {
            assert_eq!(StoreNamespace::parse(text), Err(NamespaceError), "{text:?}");
        }
    }
}
