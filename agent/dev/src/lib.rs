//! Development only, loopback only: what a cluster has around Sotto, in one process, for the demo and the tests.
//!
//! Never linked by a binary for production, and never links the agents' store client or volume code: a
//! bug there must not hide one here.
//!
//! | module | owns |
//! |---|---|
//! | [`pki`] | a CA, server and client certificates |
//! | [`issuer`] | pod tokens: keys, discovery, JWKS, TokenReview, and every way to be wrong |
//! | [`store`] | the embedded store over mutual TLS, with fault switches |
//! | [`bao`] | a real OpenBao server over mutual TLS |
//! | [`postgres`] | a real PostgreSQL server, for dynamic credentials |
//! | [`test_store`] | what the tests need of either store |
//! | [`tls`] | TLS 1.3 for all of them |
//! | [`client`] | an HTTPS client that shares nothing with the agents' |
//! | [`apiserver`] | a Kubernetes API server's part |
//! | [`kubelet`] | a kubelet's part: the one kit that publishes volumes |
//! | [`provider`] | a provider of the Secrets Store CSI driver, that speaks well and badly |
//! | [`memory`] | what is in another process's memory |
//! | [`process`] | child processes that never outlive their owner |
//! | [`node`] | one machine: directories, mounts, sotto-csi and sotto-node, pods with their sidecars |
//! | [`random`] | identifiers |
//! | [`demo`] | `sotto-dev demo` |

pub mod apiserver;
pub mod bao;
pub mod client;
pub mod demo;
mod https;
pub mod issuer;
pub mod kubelet;
pub mod memory;
pub mod node;
pub mod pki;
mod port;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod random;
pub mod store;
pub mod test_store;
pub mod tls;
mod wait;
