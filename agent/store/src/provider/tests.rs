//! The client against a provider of our own over a real socket, which speaks the protocol well and badly.

mod answers;
mod bench;
mod refusals;
mod requests;
mod rotation;
