//! FUSE's messages as bytes: requests read, replies written, in the layouts of `include/uapi/linux/fuse.h`.
//!
//! Invariant: no byte sequence makes a parser panic or read past its end; what is not understood is
//! answered by an error, never by silence. What is sent for a request is what fuser would send: the tests
//! of [`crate::dispatch`] compare the two. Flags, errnos and file types are fuser's own.

mod cursor;
pub(crate) mod reply;
pub(crate) mod request;
