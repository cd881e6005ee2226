//! A volume's file system: secrets as files, served over FUSE from memory.
//!
//! The only crate that names fuser. Logic and protocol are apart, so that the logic is tested without a
//! mount:
//!
//! | module | owns |
//! |---|---|
//! | [`tree`] | what each inode is, over the generations of one volume: no FUSE types |
//! | `adapter` | fuser's callbacks, each one call to the tree and one reply; the table of errnos |
//! | `attach` | a fuser session on a connection that somebody else initialised |
//! | [`server`] | the thread that serves, its end, and invalidation |
//! | [`audit`] | who is told of each open |

mod adapter;
mod attach;
pub mod audit;
pub mod server;
pub mod tree;

pub use audit::AuditSink;
pub use server::{End, Server};
pub use sotto_core::fuse_init::Negotiated;
pub use tree::{Layout, Refusal, StageError, Tree, TreeError};
