//! The node agent: serves the volumes of a node's pods.
//!
//! | module | owns |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`config`] | the configuration file: every fault at once |
//! | [`check`] | the `check` subcommand |
//! | [`capacity`] | how many volumes the machine has room for |
//! | [`classes`] | SecretProviderClasses from a directory of manifests |
//! | [`cluster`] | classes, events and statuses of the API server |
//! | [`driver`] | this agent's end of the link to the driver |
//! | [`resolver`] | what a sidecar is to serve |
//! | [`admin`] | the socket that probes ask |
//! | [`readiness`] | whether this agent does its work |
//! | [`metrics`] | scrapes over HTTP |
//! | [`provider_sockets`] | providers' sockets, connected by the driver |
//! | [`process`] | what the process gives up before it does anything |
//! | [`app`] | the parts put together |
#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod arguments;
pub mod capacity;
pub mod check;
pub mod classes;
pub mod cluster;
pub mod config;
pub mod driver;
pub mod metrics;
pub mod process;
pub mod provider_sockets;
pub mod readiness;
pub mod resolver;
