//! The watch's cache as a source of classes, with words for the pod's event.

use std::sync::Arc;
use std::time::Duration;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace};
use sotto_kubernetes::classes::{Classes, LookUpError};
use sotto_volume::classes::{ClassError, ClassSource, LookUp};
use tokio::time::Instant;

/// How long after the start the first list is waited for: with it, pods that start together with the agent don't
/// see a failure first.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

/// Classes of the cluster.
pub(super) struct ClusterClasses {
    classes: Classes,
    settled_by: Instant,
}

impl ClusterClasses {
    pub(super) fn new(classes: Classes) -> Self {
        Self { classes, settled_by: Instant::now() + SETTLE_DEADLINE }
    }

    async fn look_up(
        &self,
        namespace: &Namespace,
        name: &ClassName,
    ) -> Result<Arc<SecretProviderClass>, LookUpError> {
        match self.classes.look_up(namespace, name) {
            Err(LookUpError::NotSynced { .. }) => {
                self.classes
                    .synced(self.settled_by.saturating_duration_since(Instant::now()))
                    .await?;
                self.classes.look_up(namespace, name)
            }
            known => known,
        }
    }
}

impl ClassSource for ClusterClasses {
    fn class<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUp<'a> {
        Box::pin(async move { self.look_up(namespace, name).await.map_err(told) })
    }
}

fn told(error: LookUpError) -> ClassError {
    match error {
        LookUpError::NotSynced { why } => {
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            let reason =
                format!("the API server has not listed them yet{why}; the mount is tried again");
            ClassError::Unavailable { reason }
        }
        LookUpError::Unknown { namespace, name, behind: None } => {
            ClassError::Unknown { namespace, name }
        }
        // During an outage it may have been created since: that is no "not found".
        outdated @ LookUpError::Unknown { behind: Some(_), .. } => {
            ClassError::Unavailable { reason: outdated.to_string() }
        }
        LookUpError::Unusable { namespace, name, reason } => {
            ClassError::Unusable { namespace, name, reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(behind: Option<(Duration, String)>) -> ClassError {
        let namespace = Namespace::parse("shop").unwrap();
        told(LookUpError::Unknown { namespace, name: ClassName::parse("db").unwrap(), behind })
    }

    #[test]
    fn an_unknown_class_is_not_found_only_while_the_api_server_says_so() {
        assert!(matches!(unknown(None), ClassError::Unknown { .. }));
        let outage = unknown(Some((Duration::from_secs(40), "it can't be reached".to_owned())));
        assert!(matches!(outage, ClassError::Unavailable { .. }));
        let text = outage.to_string();
        assert!(text.contains("db in namespace shop") && text.contains("40 s ago"), "{text}");
    }

    #[test]
    fn a_cache_that_was_never_filled_says_so_and_why() {
        let text = told(LookUpError::NotSynced { why: Some("403".to_owned()) }).to_string();
        assert!(text.contains("not listed them yet (403); the mount is tried again"), "{text}");
    }
}
