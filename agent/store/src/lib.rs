//! Named secret stores: which exist, what a SecretProviderClass wants of them, and how it is fetched.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the administrator's list of stores, checked |
//! | [`stores`] | the stores by name |
//! | [`assigned`] | one store as a sidecar is given it, both ways |
//! | [`grammar`] | a SecretProviderClass's parameters, turned into a plan |
//! | [`plan`] | what one volume needs of its store |
//! | [`session`] | what every kind of store can do |
//! | [`error`] | why a store or one object of it failed |
//! | [`http`] | the mutual-TLS client, for stores and for signing keys |
//! | `openbao` | OpenBao and Vault |
//! | `provider` | providers of the Secrets Store CSI driver, by their sockets |
//!
//! Arrows: `grammar` makes a [`plan::VolumePlan`] out of a class and the stores; `volume` logs in with it
//! as the pod and fetches. No identity of ours reads anything.
#![forbid(unsafe_code)]

pub mod assigned;
pub mod config;
pub mod error;
pub mod grammar;
pub mod http;
mod openbao;
pub mod plan;
mod provider;
pub mod session;
pub mod stores;
mod text;

#[cfg(test)]
mod fake;

pub use error::{ObjectError, StoreError};
pub use plan::VolumePlan;
pub use provider::sockets::{ProviderSockets, SocketError};
pub use provider::{FileFault, ProviderError};
pub use session::{Fetch, Lease, PublishSecrets, SecretSession, SecretStore, Store, StoreSession};
pub use stores::Stores;
