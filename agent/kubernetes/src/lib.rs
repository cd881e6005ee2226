//! The Kubernetes API as `sotto-node` uses it. The only crate that names kube and k8s-openapi: what it
//! gives to others are plain structs.
//!
//! Invariant: nothing here needs the API server to be there. Classes are served from a cache, events
//! and statuses are queued with a bound, and a call has a deadline. [`calls`] is the whole list of what
//! is asked; the ClusterRole allows that and no more.
//!
//! | module | owns |
//! |---|---|
//! | [`client`] | the connection: address, trust, credentials, deadlines |
//! | [`classes`] | the SecretProviderClasses, watched and cached |
//! | [`token_review`] | what the API server says about a pod's token |
//! | [`events`] | events on pods, deduplicated and rate-limited |
//! | [`pod_status`] | SecretProviderClassPodStatus objects, written and never read |
//! | [`pods`] | whether a pod has a user namespace of its own, and Sotto's sidecar |
//! | [`driver_check`] | the CSIDriver object compared with the configuration |
//! | [`calls`] | every verb, group and resource |
//! | [`api_error`] | how a call can fail |
#![forbid(unsafe_code)]

pub mod api_error;
mod backoff;
pub mod calls;
pub mod classes;
pub mod client;
pub mod driver_check;
pub mod events;
pub mod pod_status;
pub mod pods;
mod text;
pub mod token_review;
