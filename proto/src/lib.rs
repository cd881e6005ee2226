//! The messages of Sotto's interfaces. Everything in `gen` is generated from the `.proto` files beside
//! `src` and checked in; `tests/generated_is_current.rs` finds drift and, with
//! `SOTTO_UPDATE_GENERATED=1`, renews it.
//!
//! Invariant: no message that carries a token or a secret has a `Debug` that would print it.
#![forbid(unsafe_code)]

/// The Container Storage Interface.
pub mod csi {
    /// Version 1: Identity and Node.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    #[rustfmt::skip]
    pub mod v1 {
        include!("gen/csi.v1.rs");
    }
}

/// How a plugin makes itself known to kubelet.
pub mod registration {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    #[rustfmt::skip]
    pub mod v1 {
        include!("gen/pluginregistration.rs");
    }
}

/// How a provider of the Secrets Store CSI driver is asked for a volume's files.
pub mod provider {
    /// Version 1 alpha 1, the only one.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    #[rustfmt::skip]
    pub mod v1alpha1 {
        include!("gen/v1alpha1.rs");
    }
}

/// What an agent's worker leaves for the next one.
pub mod deposit {
    /// Version 1, the only one: whoever reads it is the binary that wrote it.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    #[rustfmt::skip]
    pub mod v1 {
        include!("gen/sotto.deposit.v1.rs");
    }
}

/// What the driver and the agents say to each other.
pub mod handoff {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
    #[rustfmt::skip]
    pub mod v1 {
        include!("gen/sotto.handoff.v1.rs");
    }
}

mod redacted;
