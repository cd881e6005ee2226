//! The client against a server that answers whatever a test says; the real one is tested in `tests/`.

mod bench;
mod failover;
mod leases;
mod logins;
mod reads;
