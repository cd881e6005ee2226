//! Where SecretProviderClasses come from: a directory of manifests, or the API server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace};

use crate::volumes::Settings;

/// Why there is no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// The source knows that there is none.
    #[error(
        "no SecretProviderClass {name} in namespace {namespace}: create it there, or correct the \
         volume's secretProviderClass attribute"
    )]
    Unknown {
        /// The pod's namespace.
        namespace: Namespace,
        /// The name in the volume's attributes.
        name: ClassName,
    },
    /// It exists, and its author must correct it.
    #[error("SecretProviderClass {namespace}/{name} can't be used: {reason}")]
    Unusable {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ClassName,
        /// What is wrong.
        reason: String,
    },
    /// The source can't be read: the class may well exist.
    #[error("the SecretProviderClasses can't be read: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// A look-up under way.
pub type LookUp<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<SecretProviderClass>, ClassError>> + Send + 'a>>;

/// The same with its settings.
pub type LookUpNow<'a> = Pin<Box<dyn Future<Output = Result<ClassNow, ClassError>> + Send + 'a>>;

/// A class, and what it is to be planned with.
pub struct ClassNow {
    /// The class.
    pub class: Arc<SecretProviderClass>,
    /// `None`: what the volumes were made with. The same ones, by address, as long as nothing in them changes.
    pub settings: Option<Arc<Settings>>,
}

/// Knows the classes.
pub trait ClassSource: Send + Sync {
    /// The class `name` of `namespace`, as it is now. Must not wait for the network.
    fn class<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUp<'a>;

    /// The same with the settings, for a source that is told of both at once.
    fn class_now<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUpNow<'a> {
        Box::pin(async {
            Ok(ClassNow { class: self.class(namespace, name).await?, settings: None })
        })
    }
}
