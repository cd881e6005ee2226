//! `secretPath`: what is read in a store.
//!
//! Invariant: the path that goes out is exactly the one that was checked. A server answers `a//b` and `..`
//! with a redirect to a cleaned path, which would leave the prefix; such paths are refused here, and every
//! byte that could be read in another way is percent-encoded.

use std::fmt::{self, Write};

/// Longest path with its query, in bytes.
pub const MAX_SECRET_PATH_BYTES: usize = 2048;
const MAX_QUERY_PAIRS: usize = 16;
const API_PREFIX: &str = "v1/";
/// The key of a query that names a version.
const VERSION: &str = "version";

/// A path in a store, e.g. `secret/data/payments/db?version=3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretPath {
    path: String,
    /// Sorted, so that two spellings of one query are equal.
    query: Vec<(String, String)>,
}

/// Why a path can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretPathError {
    /// Nothing there.
    #[error("secretPath is empty: write e.g. secret/data/payments/db")]
    Empty,
    /// A `//`, or a `/` at the end.
    #[error("secretPath has an empty segment: write single slashes, and none at the end")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("secretPath has a \".\" or \"..\" segment: write the path without it")]
    Dots,
    /// A control or otherwise invisible character.
    #[error("secretPath has a character that can't be printed")]
    NotPrintable,
    /// Over [`MAX_SECRET_PATH_BYTES`].
    #[error("secretPath has {0} bytes: at most {MAX_SECRET_PATH_BYTES}")]
    TooLong(usize),
    /// A query that can't be decoded or has too many pairs.
    #[error("the query of secretPath can't be read: write e.g. ?version=3")]
    Query,
}

impl SecretPath {
    /// Parses a path as its author wrote it: with or without a leading `/` or `/v1/`, with or without a
    /// query.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, SecretPathError> {
        if text.len() > MAX_SECRET_PATH_BYTES {
            return Err(SecretPathError::TooLong(text.len()));
        }
        if !text.chars().all(|c| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric()) {
            return Err(SecretPathError::NotPrintable);
        }
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_prefix(API_PREFIX).unwrap_or(path);
        if path.is_empty() {
            return Err(SecretPathError::Empty);
        }
        path.split('/').try_for_each(check_segment)?;
        let mut query = parse_query(query)?;
        query.sort();
        Ok(Self { path: path.to_owned(), query })
    }

    /// What goes onto the wire: `/v1/` and the path, percent-encoded, with the query.
    #[must_use]
    pub fn target(&self) -> String {
        let mut target = format!("/{API_PREFIX}");
        encode(&self.path, b"-._~!$&'()*+,;=:@/", &mut target);
        for (index, (key, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            encode(key, b"-._~", &mut target);
            target.push('=');
            encode(value, b"-._~", &mut target);
        }
        target
    }

    /// The same at this version of a KV version 2 engine; `None` if a version is named already.
    #[must_use]
    pub(super) fn at_version(&self, number: u64) -> Option<Self> {
        if self.query.iter().any(|(key, _)| key == VERSION) {
            return None;
        }
        let mut query = self.query.clone();
        query.push((VERSION.to_owned(), number.to_string()));
        query.sort();
        Some(Self { path: self.path.clone(), query })
    }

    /// The same with `data` after its first segment: what KV version 2 wants.
    #[must_use]
    pub fn with_data_segment(&self) -> Option<String> {
        let (mount, rest) = self.path.split_once('/')?;
        Some(format!("{mount}/data/{rest}"))
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (index, (key, value)) in self.query.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

fn check_segment(segment: &str) -> Result<(), SecretPathError> {
    match segment {
        "" => Err(SecretPathError::EmptySegment),
        "." | ".." => Err(SecretPathError::Dots),
        _ordinary => Ok(()),
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, SecretPathError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let parse = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(key)?, decode(value)?))
    };
    let pairs: Option<Vec<_>> = pairs.map(parse).collect();
    pairs.filter(|pairs| pairs.len() <= MAX_QUERY_PAIRS).ok_or(SecretPathError::Query)
}

/// `application/x-www-form-urlencoded`: `+` is a space. What decodes to a control character is refused.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(*rest.next()?).to_digit(16)?;
                let low = char::from(*rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            plain => *plain,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

fn encode(text: &str, kept: &[u8], target: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            target.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(text: &str) -> String {
        SecretPath::parse(text).unwrap().target()
    }

    #[test]
    fn every_usual_spelling_is_the_same_path() {
        let path = SecretPath::parse("secret/data/x").unwrap();
        for spelling in ["/secret/data/x", "v1/secret/data/x", "/v1/secret/data/x"] {
            assert_eq!(SecretPath::parse(spelling).unwrap(), path, "{spelling}");
        }
        assert_eq!(path.target(), "/v1/secret/data/x");
    }

    #[test]
    fn the_query_is_parsed_and_its_order_does_not_matter() {
        assert_eq!(target("secret/data/x?version=3"), "/v1/secret/data/x?version=3");
        assert_eq!(
            SecretPath::parse("a?b=1&c=x+y").unwrap(),
            SecretPath::parse("a?c=x%20y&b=1").unwrap()
        );
        assert_eq!(target("a?k=%2F%26"), "/v1/a?k=%2F%26");
    }

    #[test]
    fn what_could_be_read_in_another_way_is_encoded() {
        assert_eq!(target("secret/a b/%2e%2e/ü#x"), "/v1/secret/a%20b/%252e%252e/%C3%BC%23x");
    }

    #[test]
    fn paths_that_a_server_would_clean_are_refused() {
        use SecretPathError::*;
        for (text, error) in [
            ("", Empty),
            ("/v1/", Empty),
            ("?version=3", Empty),
            ("secret//x", EmptySegment),
            ("secret/x/", EmptySegment),
            ("//secret/x", EmptySegment),
            ("secret/../sys/raw", Dots),
            ("secret/./x", Dots),
            ("..", Dots),
            ("secret/x\0", NotPrintable),
            ("secret/x\r\nHost: evil", NotPrintable),
            ("secret/\u{202e}x", NotPrintable),
            ("secret/x?a=%zz", Query),
            ("secret/x?a=%0a", Query),
            ("secret/x?a=%f", Query),
        ] {
            assert_eq!(SecretPath::parse(text), Err(error), "{text:?}");
        }
        let long = "x".repeat(MAX_SECRET_PATH_BYTES + 1);
        assert_eq!(SecretPath::parse(&long), Err(TooLong(long.len())));
    }

    #[test]
    fn the_data_segment_of_kv_version_2_is_suggested() {
        let path = SecretPath::parse("secret/payments/db").unwrap();
        assert_eq!(path.with_data_segment().as_deref(), Some("secret/data/payments/db"));
        assert_eq!(SecretPath::parse("secret").unwrap().with_data_segment(), None);
    }

    #[test]
    fn an_earlier_version_is_named_in_the_query_unless_one_is_already() {
        let at = |text: &str| Some(SecretPath::parse(text).unwrap().at_version(3)?.target());
        assert_eq!(at("secret/data/x").as_deref(), Some("/v1/secret/data/x?version=3"));
        assert_eq!(at("secret/data/x?a=b").as_deref(), Some("/v1/secret/data/x?a=b&version=3"));
        assert_eq!(at("secret/data/x?version=2"), None);
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_a_clean_url_that_means_itself(text in "[ -~äß/.%?&=+]{0,60}") {
            if let Ok(path) = SecretPath::parse(&text) {
                let target = path.target();
                prop_assert!(target.parse::<http::uri::PathAndQuery>().is_ok(), "{target}");
                let sent = target.split('?').next().unwrap();
                prop_assert!(!sent.contains("//") && !sent.ends_with('/'));
                prop_assert!(sent.split('/').all(|segment| segment != "." && segment != ".."));
                let printed = path.to_string();
                prop_assert!(printed.starts_with(&path.path));
            }
        }
    }
}
