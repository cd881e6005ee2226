//! One mistake of a pod, a manifest or the settings, with its path.
//!
//! Invariant: faults are collected and told together. Nothing here is a secret: manifests and settings hold
//! none, so messages may repeat a part of them.

use std::fmt;

/// Longest part of a tenant's text in a message, in characters.
const QUOTED_CHARACTERS: usize = 80;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, e.g. `spec.containers[0]`; empty for the whole.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// All mistakes at once; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// All of them in one line.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// The beginning of somebody else's text; `{:?}` escapes the rest.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(QUOTED_CHARACTERS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_its_control_characters_are_escaped() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(&"x".repeat(1_000)).len(), QUOTED_CHARACTERS + 2);
    }
}
