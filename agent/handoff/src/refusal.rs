//! A no with its reason: what a pod's event will show.

use crate::message::{Code, Refused};

/// Longest message of a refusal, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    /// A refusal; control characters are removed from the message and it is cut at
    /// [`MAX_MESSAGE_BYTES`].
    #[must_use]
    pub fn new(code: Code, message: &str) -> Self {
        let mut clean = String::with_capacity(message.len().min(MAX_MESSAGE_BYTES));
        for character in message.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if clean.len() + character.len_utf8() > MAX_MESSAGE_BYTES {
                break;
            }
            clean.push(character);
        }
        Self { code, message: clean }
    }

    /// Its kind.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::new(refused.code(), &refused.message)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.into(), message: refusal.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_a_peer_is_cleaned_and_bounded() {
        let hostile = format!("line\nforged\u{1b}[31m{}", "é".repeat(2_000));
        let refusal = Refusal::from(Refused { code: 99, message: hostile });
        assert_eq!(refusal.code(), Code::Unspecified);
        assert!(refusal.message().starts_with("line forged [31m"));
        assert!(refusal.message().len() <= MAX_MESSAGE_BYTES);
    }
}
