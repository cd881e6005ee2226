//! What a worker needs to know to begin: the volume, its pod, and the last assignment that it was planned with.
//!
//! Invariant: no token and no value is in it. It is left to the next worker inside the volume's own deposit, so that
//! the settings and the login that was made with them are never of two different moments.

use prost::Message as _;
use sotto_handoff::message::{Assignment, Prepare};

/// A Prepare of which only volume, pod, class and assignment are set.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning(Prepare);

impl Beginning {
    /// Of a volume, by what the driver said of it.
    #[must_use]
    pub fn of(message: &Prepare, assignment: Assignment) -> Self {
        Self(Prepare {
            volume_id: message.volume_id.clone(),
            pod: message.pod.clone(),
            secret_provider_class: message.secret_provider_class.clone(),
            assignment: Some(assignment),
            ..Prepare::default()
        })
    }

    /// The same volume with another assignment.
    #[must_use]
    pub fn with(&self, assignment: Assignment) -> Self {
        Self::of(&self.0, assignment)
    }

    /// As the driver would say it.
    #[must_use]
    pub fn message(&self) -> &Prepare {
        &self.0
    }

    /// For the next worker.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// What a former worker left.
    ///
    /// # Errors
    /// It is no beginning.
    pub fn read(left: &[u8]) -> Result<Self, prost::DecodeError> {
        Prepare::decode(left).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_back_and_holds_no_token() {
        let message = Prepare {
            volume_id: "csi-1".to_owned(),
            service_account_tokens: b"canary".to_vec(),
            ..Prepare::default()
        };
        let beginning = Beginning::of(&message, Assignment::default());
        let left = beginning.encode();
        assert!(!left.windows(6).any(|part| part == b"canary"));
        assert_eq!(Beginning::read(&left).unwrap(), beginning);
        assert!(Beginning::read(b"\xff").is_err());
    }
}
