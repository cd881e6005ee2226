//! The sidecar: an unprivileged process in the pod's own sandbox that serves the pod's own volume, with the token
//! that kubelet projects into its container. It has no configuration and no Kubernetes client: what it serves and
//! whom it believes come from `sotto-node`, over the pod's handoff socket.
//!
//! | module | owns |
//! |---|---|
//! | [`arguments`] | the command line: every fault at once |
//! | [`assignment`] | what it is to serve, checked |
//! | [`candidate`] | the settings that an assignment comes to, if it can be gone on with |
//! | [`token`] | the pod's token, as the file has it now |
//! | [`classes`] | the class, asked for again with each refresh |
//! | [`requests`] | what the driver asks |
//! | [`serving`] | the volume's parts, made of its assignment |
//! | [`beginning`] | what a worker needs to know to begin |
//! | [`withdrawal`] | that the pod may not have its secrets any more |
//! | [`reports`] | events of a node agent, as lines of the log |
//! | [`probe`] | `sotto-agent probe` |
//! | [`exec`] | `sotto-agent exec`: values as environment variables |
//! | [`process`] | what the process gives up before it does anything |
//! | [`app`] | the parts put together |
#![forbid(unsafe_code)]

pub mod app;
pub mod arguments;
pub mod assignment;
pub mod beginning;
pub mod candidate;
pub mod classes;
pub mod exec;
pub mod probe;
pub mod process;
pub mod reports;
pub mod requests;
pub mod serving;
pub mod token;
pub mod withdrawal;
