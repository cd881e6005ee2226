//! A server in the test's own process that answers over TLS whatever the test says, and notes what it saw.

mod pki;
mod server;

pub(crate) use pki::{Identity, Pki};
pub(crate) use server::{FakeServer, Reply, Seen};
