//! One volume's life: the pod's token, the fetch, the snapshot, serving, release.
//!
//! | module | owns |
//! |---|---|
//! | [`token`] | the pod's tokens and who may be believed by them |
//! | [`classes`] | where SecretProviderClasses come from |
//! | [`cluster`] | what only the API server knows about a pod |
//! | [`reporter`] | who is told about a pod's volume |
//! | [`volumes`] | every volume of the agent, each with one owner task |
//! | [`audit`] | the audit log, written without ever blocking a reader |
#![forbid(unsafe_code)]

pub mod audit;
pub mod classes;
pub mod cluster;
pub mod driver;
pub mod reporter;
pub mod token;
pub mod volumes;
