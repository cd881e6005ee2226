//! Each key of the two grammars.

mod addresses;
mod bench;
mod objects;
mod providers;
