//! The crate against a fake API server over HTTPS, which loses connections, answers late, refuses and
//! goes away; and its calls against the manifests in `deploy/`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "api/classes.rs"]
mod classes;
#[path = "api/client.rs"]
mod client;
#[path = "api/driver_check.rs"]
mod driver_check;
#[path = "api/events.rs"]
mod events;
#[path = "api/in_cluster.rs"]
mod in_cluster;
#[path = "api/kit.rs"]
mod kit;
#[path = "api/manifests.rs"]
mod manifests;
#[path = "api/outage.rs"]
mod outage;
#[path = "api/permissions.rs"]
mod permissions;
#[path = "api/pod_status.rs"]
mod pod_status;
#[path = "api/pods.rs"]
mod pods;
#[path = "api/token_review.rs"]
mod token_review;
