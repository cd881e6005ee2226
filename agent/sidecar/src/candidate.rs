//! The settings that an assignment comes to: made once, and the same ones as long as somebody has them.
//!
//! Invariant: what the volume has is not put at risk by settings that can't work: the store can be made, the class
//! planned against it, and the token that is projected into the pod is one for it. Assignments that name the same
//! store, to the letter, share its connections and what its logins are good for; no others do.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use sotto_core::identity::{ClassName, WorkloadIdentity};
use sotto_handoff::message::{AssignedClass, Assignment};
use sotto_store::Stores;
use sotto_store::assigned::ClientFiles;
use sotto_store::grammar;
use sotto_store::plan::Subject;
use sotto_volume::volumes::{Settings, identity};

use crate::assignment::{Assigned, AssignmentError, Basis};
use crate::beginning::Beginning;

/// Makes the settings of one volume's assignments.
pub struct Candidates {
    /// The pod's own client certificate.
    client: Option<ClientFiles>,
    pod: WorkloadIdentity,
    class: ClassName,
    /// Of the token that is projected into the pod.
    audience: String,
    beginning: Beginning,
    known: Mutex<Vec<Known>>,
}

struct Known {
    basis: Basis,
    settings: Weak<Settings>,
}

impl Candidates {
    /// For the volume that begins so, with the first settings.
    ///
    /// # Errors
    /// Its store can't be made.
    pub async fn new(
        client: Option<ClientFiles>,
        beginning: &Beginning,
        assigned: &Assigned,
    ) -> Result<(Self, Arc<Settings>), AssignmentError> {
        let message = beginning.message();
        let pod = message.pod.clone().ok_or_else(|| AssignmentError::new("it names no pod"))?;
        let pod = identity(pod).map_err(|error| AssignmentError::new(error.to_string()))?;
        let class = ClassName::parse(message.secret_provider_class.as_str());
        let class = class.map_err(|error| AssignmentError::new(error.to_string()))?;
        let audience = assigned.basis.store.audience.clone();
        let (beginning, known) = (beginning.clone(), Mutex::default());
        let candidates = Self { client, pod, class, audience, beginning, known };
        let assignment = candidates.beginning.message().assignment.clone().unwrap_or_default();
        let settings = candidates.made(&assigned.basis, assignment).await?;
        let settings = candidates.remembered(&assigned.basis, settings);
        Ok((candidates, settings))
    }

    /// The pod.
    #[must_use]
    pub fn pod(&self) -> &WorkloadIdentity {
        &self.pod
    }

    /// The settings of an assignment; those that the volume has already, if they are the same.
    ///
    /// # Errors
    /// Why the volume has to stay with what it has.
    pub async fn settings(
        &self,
        assigned: &Assigned,
        message: Assignment,
    ) -> Result<Arc<Settings>, AssignmentError> {
        if let Some(settings) = self.find(|known| known.basis == assigned.basis) {
            return Ok(settings);
        }
        let basis = &assigned.basis;
        if basis.store.audience != self.audience {
            return Err(AssignmentError::new(format!(
                "its store is for tokens of audience {}, and the pod has one for {}: start the pod again",
                basis.store.audience, self.audience
            )));
        }
        let settings = self.made(basis, message).await?;
        let class = assigned.class(&self.pod.namespace, &self.class);
        let planned = grammar::plan(&class, &self.pod, &settings.stores, &settings.limits);
        planned.map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            AssignmentError::new(errors.join("; "))
        })?;
        Ok(self.remembered(basis, settings))
    }

    /// The settings that a former worker left of a login of an earlier time.
    ///
    /// # Errors
    /// They can't be made any more.
    pub async fn left(&self, left: &[u8]) -> Result<Arc<Settings>, AssignmentError> {
        let beginning = Beginning::read(left);
        let beginning = beginning.map_err(|error| AssignmentError::new(error.to_string()))?;
        let message = beginning.message().assignment.clone().unwrap_or_default();
        let assigned = Assigned::read(message.clone())?;
        Ok(Arc::new(self.made(&assigned.basis, message).await?))
    }

    async fn made(&self, basis: &Basis, message: Assignment) -> Result<Settings, AssignmentError> {
        // The class is left beside it; equal settings leave the same bytes.
        let message = Assignment { class: Some(AssignedClass::default()), ..message };
        let left = self.beginning.with(message).encode();
        let of_same_store = self.find(|known| known.basis.store == basis.store);
        let made = match of_same_store {
            Some(settings) => settings.but(basis.limits, basis.refresh),
            None => Settings::new(Arc::new(self.stores(basis).await?), basis.limits, basis.refresh),
        };
        Ok(made.leaving(left))
    }

    async fn stores(&self, basis: &Basis) -> Result<Stores, AssignmentError> {
        let (store, client) = (basis.store.clone(), self.client.clone());
        let subject = Subject::from(&self.pod);
        // It reads the client certificate's files.
        let open = move || Stores::assigned(&store, client.as_ref(), &subject);
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.map_err(|_| AssignmentError::new("its store can't be made"))?;
        opened.map_err(|faults| {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            AssignmentError::new(format!("store {}: {}", basis.store.name, faults.join("; ")))
        })
    }

    fn find(&self, is_wanted: impl Fn(&Known) -> bool) -> Option<Arc<Settings>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|known| is_wanted(known)).find_map(|known| known.settings.upgrade())
    }

    fn remembered(&self, basis: &Basis, settings: Settings) -> Arc<Settings> {
        let settings = Arc::new(settings);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.settings.strong_count() > 0);
        known.push(Known { basis: basis.clone(), settings: Arc::downgrade(&settings) });
        settings
    }
}
