//! Sidecar mode, end to end: the webhook's pod, the real driver, node agent and sidecar as processes of their own, and
//! a real OpenBao.

#[path = "sidecar/canary.rs"]
mod canary;
#[path = "sidecar/cluster.rs"]
mod cluster;
#[path = "sidecar/driver.rs"]
mod driver;
#[path = "sidecar/end.rs"]
mod end;
#[path = "sidecar/environment.rs"]
mod environment;
#[path = "sidecar/handoff.rs"]
mod handoff;
#[path = "sidecar/kills.rs"]
mod kills;
#[path = "sidecar/links.rs"]
mod links;
#[path = "sidecar/moves.rs"]
mod moves;
#[path = "sidecar/rotation.rs"]
mod rotation;
#[path = "sidecar/start.rs"]
mod start;
