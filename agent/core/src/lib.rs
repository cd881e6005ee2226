//! Pure types that every other crate of Sotto speaks: no I/O, no async, no unsafe code.
//!
//! | module | owns |
//! |---|---|
//! | [`secret`] | values that are wiped on drop and can't be printed |
//! | [`names`] | validated file names inside a volume |
//! | [`identity`] | who a pod is: one newtype for every identifier |
//! | [`attributes`] | the whole contract of a volume's attributes |
//! | [`class`] | a SecretProviderClass, as its author wrote it |
//! | [`fuse_init`] | the first message on a FUSE connection |
//! | [`limits`] | how large objects and volumes may be |
//! | [`snapshot`] | one complete, immutable generation of a volume |
//! | [`rotation`] | when a volume asks its store again, and what the answers mean |
//! | [`breaker`] | when a store that can't answer is asked again, by all volumes that use it |
//! | [`lease`] | when leases and their token are prolonged, or what was read under them is read anew |
//! | [`audit`] | the record of each decision |
//! | [`clock`] | wall time that tests can set |
//! | [`fnv`] | a hash that is the same in every build |
#![forbid(unsafe_code)]

pub mod attributes;
pub mod audit;
pub mod breaker;
pub mod class;
pub mod clock;
pub mod fnv;
pub mod fuse_init;
pub mod identity;
pub mod lease;
pub mod limits;
pub mod names;
pub mod rotation;
pub mod secret;
pub mod snapshot;
