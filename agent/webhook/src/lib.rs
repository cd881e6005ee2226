//! `sotto-webhook`: adds the sidecar to pods that ask for it, in a cluster or offline.
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what the administrator decides: image, audience, bounds |
//! | [`inject`] | a pod and the settings in, a patch or all faults out; pure |
//! | [`patch`] | an add-only JSON patch |
//! | [`quantity`] | amounts of CPU and memory |
//! | [`fault`] | one mistake, with its path |
//! | [`render`] | the same injection over manifests, for GitOps and review |
//! | [`review`] | AdmissionReview in and out |
//! | [`server`] | HTTPS, bounded in time and size |
//! | [`certificate`] | the serving certificate, reloaded when its files change |
//! | [`admin`] | the socket that exec probes ask |
//! | [`app`] | the parts put together |
//! | [`arguments`] | the command line |
#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod arguments;
pub mod certificate;
pub mod fault;
pub mod inject;
pub mod patch;
pub mod quantity;
pub mod render;
pub mod review;
pub mod server;
pub mod settings;
