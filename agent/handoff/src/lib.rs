//! How the driver and the agents talk: frames and file descriptors over a unix SEQPACKET socket.
//!
//! | module | owns |
//! |---|---|
//! | [`frame`] | the packet: header, protobuf body, bounds |
//! | [`packet`] | one packet with at most one fd over the socket |
//! | [`socket`] | a listening socket that is private before it can be connected to |
//! | [`peer`] | who is at the other end, as the kernel says |
//! | [`handshake`] | versions and roles |
//! | [`link`] | requests and answers in both directions, each with a deadline, bounded |
//! | [`refusal`] | a no with its reason |

pub mod frame;
pub mod handshake;
pub mod link;
pub mod packet;
pub mod peer;
mod reactor;
pub mod refusal;
pub mod socket;

pub use sotto_proto::handoff::v1 as message;
