//! Whether another assignment can be gone on with, asked before a worker ends for it.
//!
//! Invariant: what the volume has is not put at risk by settings that can't work: the store can be made, the class
//! planned against it, and the token that is projected into the pod is one for it.

use sotto_core::identity::ClassName;
use sotto_store::assigned::ClientFiles;
use sotto_store::grammar;
use sotto_volume::volumes::identity;

use crate::anew::Beginning;
use crate::assignment::{Assigned, AssignmentError, Basis};
use crate::serving::stores;

/// What stays the same for the whole life of the pod.
#[derive(Clone)]
pub struct Candidates {
    /// The pod's own client certificate.
    pub client: Option<ClientFiles>,
}

impl Candidates {
    /// Checks an assignment for the volume that begins so.
    ///
    /// # Errors
    /// Why the worker has to stay with what it has.
    pub async fn check(
        &self,
        (now, beginning): (&Basis, &Beginning),
        next: &Assigned,
    ) -> Result<(), AssignmentError> {
        if next.basis.store.audience != now.store.audience {
            return Err(AssignmentError::new(format!(
                "its store is for tokens of audience {}, and the pod has one for {}: start the pod again",
                next.basis.store.audience, now.store.audience
            )));
        }
        let message = beginning.message();
        let pod = message.pod.clone().ok_or_else(|| AssignmentError::new("it names no pod"))?;
        let pod = identity(pod).map_err(|error| AssignmentError::new(error.to_string()))?;
        let name = ClassName::parse(message.secret_provider_class.as_str());
        let name = name.map_err(|error| AssignmentError::new(error.to_string()))?;
        let stores = stores(self.client.as_ref(), &next.basis, &pod).await?;
        let class = next.class(&pod.namespace, &name);
        grammar::plan(&class, &pod, &stores, &next.basis.limits).map(drop).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            AssignmentError::new(errors.join("; "))
        })
    }
}
