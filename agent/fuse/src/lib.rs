//! A volume's file system: secrets as files, served over FUSE from memory.
//!
//! The only crate that names fuser: its words for the protocol (flags, errnos) are ours, and the tests hold
//! every reply against its. The loop is our own, because fuser's session takes two threads and 16 MiB of
//! address space a volume, and insists on a handshake that a server after a crash can't have. Logic and
//! protocol are apart, so that the logic is tested without a mount:
//!
//! | module | owns |
//! |---|---|
//! | [`tree`] | what each inode is, over the generations of one volume: no FUSE types |
//! | `wire` | FUSE's messages as bytes |
//! | `dispatch` | each request: one call to the tree and one reply; the table of errnos |
//! | `device` | a connection that somebody else initialised |
//! | [`server`] | the thread that serves, its end, and invalidation |
//! | [`audit`] | who is told of each open |

pub mod audit;
mod device;
mod dispatch;
pub mod server;
pub mod tree;
mod wire;

pub use audit::AuditSink;
pub use server::{End, Server};
pub use sotto_core::fuse_init::Negotiated;
pub use tree::{Layout, Refusal, StageError, Tree, TreeError};
