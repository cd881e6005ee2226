//! Pods with a sidecar of their own: what this process does for them, and what it never has.
//!
//! Such a pod has two volumes of this driver's second name. The one with the secrets is mounted without
//! anybody to serve it; the other shows a socket that only the pod's sidecar mounts. The sidecar connects, is
//! checked, is told what to serve (as sotto-node resolved it) and is given the FUSE connection.
//!
//! Invariant: no token and no secret of the pod passes through this process. A connection counts for the pod
//! whose directory its socket lies in, if the kernel says that its process runs as the sidecars' user and in that
//! pod; one process at a time is the pod's sidecar, and it may ask about this pod's volumes alone.
//!
//! | module | owns |
//! |---|---|
//! | [`pods`] | which pods there are, and their sidecars |
//! | [`handoff`] | the volume with the socket |
//! | `directory` | what it shows, in the run directory |
//! | `listener` | the socket: who comes, who is let in |
//! | [`peer`] | which pod a process is of |
//! | `assignment` | what a sidecar is to serve |
//! | `publish` | the volume with the secrets |
//! | `remount` | one whose connection was lost before anybody read |

pub(crate) mod assignment;
mod directory;
pub mod handoff;
mod listener;
pub mod peer;
pub mod pods;
pub(crate) mod publish;
pub(crate) mod remount;

pub use assignment::AssignmentError;
pub(crate) use handoff::resume;
pub use pods::Pods;
