//! A restarted driver asks for what it lost: the connection, and the pod's token for the next agent.
//!
//! Invariant: only a volume that is being served is given back; the token is the verified one that the volume
//! logs in with, in wiped memory, and goes to no one but the driver, which sent it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sotto_core::identity::Audience;
use sotto_core::secret::SecretString;
use zeroize::Zeroizing;

use super::super::error::VolumeError;
use super::super::request::Brought;
use super::super::showing::Showing;
use super::{Owner, Reply, State, answer};
use crate::token::TokenMap;

/// What the driver gets back.
pub(in super::super) struct Given {
    pub(in super::super) connection: OwnedFd,
    pub(in super::super) shown: Showing,
    /// As kubelet sends them.
    pub(in super::super) tokens: Zeroizing<Vec<u8>>,
}

/// The pod's token: as it came, until it is known to be good; then the one for the store's audience.
#[derive(Default)]
pub(super) enum PodToken {
    #[default]
    None,
    Arrived(Arc<Brought>),
    Verified(SecretString),
}

impl PodToken {
    /// The volume was prepared with it.
    pub(super) fn is_good_for(&mut self, audience: &Audience) {
        if let Self::Arrived(brought) = self {
            let token = TokenMap::parse(&brought.tokens).and_then(|tokens| tokens.take(audience));
            *self = token.map_or(Self::None, Self::Verified);
        }
    }

    /// The token, once it is known to be good.
    pub(super) fn verified(&self) -> Option<&SecretString> {
        match self {
            Self::Verified(token) => Some(token),
            Self::None | Self::Arrived(_) => None,
        }
    }

    /// In kubelet's form; empty if there is none.
    fn for_audience(&self, audience: &Audience) -> Zeroizing<Vec<u8>> {
        let Self::Verified(token) = self else { return Zeroizing::default() };
        let (Ok(audience), Ok(token)) =
            (serde_json::to_string(audience.as_str()), serde_json::to_string(token.expose()))
        else {
            return Zeroizing::default();
        };
        let token = Zeroizing::new(token);
        let parts = ["{", &audience, ":{\"token\":", &token, "}}"];
        // Of its final size at once: nothing is left where it was smaller.
        let mut json = Zeroizing::new(Vec::with_capacity(parts.iter().map(|it| it.len()).sum()));
        parts.iter().for_each(|part| json.extend_from_slice(part.as_bytes()));
        json
    }
}

impl Owner {
    pub(super) fn give_back(&mut self, reply: Reply<Given>) {
        let volume = &self.spec.volume;
        let State::Serving { held } = &mut self.state else {
            return answer(reply, Err(VolumeError::Unknown(volume.clone())));
        };
        let server = if held.is_served() { held.servers.last() } else { None };
        let given = match server.map(|server| server.connection()) {
            Some(Ok(connection)) => Ok(Given {
                connection,
                shown: held.shown(),
                tokens: self.pod_token.for_audience(&held.plan.audience),
            }),
            Some(Err(error)) => {
                Err(VolumeError::Attach { volume: volume.clone(), reason: error.to_string() })
            }
            None => Err(VolumeError::Unknown(volume.clone())),
        };
        answer(reply, given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(text: &str) -> Audience {
        Audience::parse(text).unwrap()
    }

    #[test]
    fn only_the_stores_token_is_kept_and_it_comes_back_as_kubelet_sent_it() {
        let sent = br#"{"bao":{"token":"one"},"other":{"token":"canary"}}"#.to_vec();
        let mut token = PodToken::Arrived(Arc::new(Brought::new(sent, Vec::new())));
        assert!(token.for_audience(&audience("bao")).is_empty(), "it isn't verified yet");
        token.is_good_for(&audience("bao"));
        let json = token.for_audience(&audience("bao"));
        assert!(!json.windows(6).any(|part| part == b"canary"));
        let back = TokenMap::parse(&json).unwrap().take(&audience("bao")).ok().unwrap();
        assert_eq!(back.expose(), "one");
    }
}
