//! The CSI node driver: the only privileged process of Sotto. It mounts, holds FUSE file descriptors and
//! passes them on; on a connection it answers FUSE_INIT, and errors where nobody else answers.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`settings`] | the command line, and what it says once checked |
//! | [`confinement`] | what the process gives up first |
//! | [`app`] | wiring, and the way out |
//! | [`identity`], [`node`], [`registration`] | the services that kubelet calls |
//! | `services` | what a socket offers of them, and its connections |
//! | [`publish`], [`unpublish`] | the life of a volume |
//! | [`broker`] | the connected agents and their requests |
//! | `standby` | an agent that is about to take the place of another |
//! | `sidecar` | pods whose volumes a sidecar of theirs serves: their handoff volumes and sockets |
//! | `takeover` | volumes whose agent is gone |
//! | `returns`, [`connection`] | connections that agents give back after a restart |
//! | `unserved` | those who wait for such a volume |
//! | [`rotation`], [`mount_health`] | what only a helper process may ask of a mount |
//! | [`providers`] | the sockets of secrets-store providers, connected for agents |
//! | [`credentials`], `notices` | what goes to agents with a volume, and what pods are told through them |
//! | [`target`], [`mountinfo`], [`mount`] | paths and mounts |
//! | [`volume`], [`volumes`], [`shown`], [`journal`], [`reconcile`] | what is mounted and shown, and what survives a restart |
//! | [`socket`], [`run_dir`] | sockets and the run directory |
//! | [`probe`] | the exec probe |

pub mod app;
pub mod broker;
pub mod cli;
pub mod confinement;
pub mod connection;
pub mod credentials;
pub mod driver;
pub mod identity;
pub mod journal;
pub mod mount;
pub mod mount_health;
pub mod mountinfo;
pub mod node;
mod notices;
pub mod probe;
pub mod providers;
pub mod publish;
pub mod reconcile;
pub mod registration;
mod returns;
pub mod rotation;
pub mod run_dir;
pub(crate) mod services;
pub mod settings;
pub mod shown;
pub mod sidecar;
pub mod socket;
mod standby;
mod takeover;
pub mod target;
pub mod unpublish;
mod unserved;
mod view;
pub mod volume;
pub mod volumes;
