//! The volume's class: as the driver just brought it, then asked for again with each refresh.
//!
//! Invariant: while the driver or `sotto-node` is away, or the class is not as it should be, it can't be read, and the
//! volume keeps what it has. What the administrator doesn't allow any more, confirmed once, is given up. An answer with other settings of the store is not followed by this worker: see [`crate::anew`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sotto_core::identity::{ClassName, Namespace};
use sotto_handoff::link::CallError;
use sotto_handoff::message::{Assignment, Code, Resolve};
use sotto_volume::classes::{ClassError, ClassSource, LookUp};
use sotto_volume::driver::{DriverCallError, DriverCalls};
use tokio::time::Instant;

use crate::anew::{Anew, Beginning};
use crate::assignment::{Assigned, Basis};
use crate::candidate::Candidates;

/// How long driver and `sotto-node` may take; the volume's refresh waits for it.
const DEADLINE: Duration = Duration::from_secs(5);
/// For how long what a Prepare brought is what the class is.
const IS_NEW: Duration = Duration::from_secs(10);

/// Denials in a row.
const CONFIRMED: u32 = 2;

/// The class of one volume.
pub struct AssignedClasses {
    driver: DriverCalls,
    anew: Anew,
    candidates: Candidates,
    /// What this worker was made with.
    basis: Basis,
    state: Mutex<State>,
}

struct State {
    beginning: Beginning,
    delivered: Option<(Instant, Assigned)>,
    told: String,
    /// In a row.
    denials: u32,
}

impl AssignedClasses {
    /// For a worker that is made with `basis`, and a volume that begins so.
    #[must_use]
    pub fn new(
        driver: DriverCalls,
        (anew, candidates): (Anew, Candidates),
        basis: Basis,
        beginning: Beginning,
    ) -> Self {
        let state = State { beginning, delivered: None, told: String::new(), denials: 0 };
        Self { driver, anew, candidates, basis, state: Mutex::new(state) }
    }

    /// A Prepare brought this: it answers the next question.
    pub fn deliver(&self, beginning: Beginning, assigned: Assigned) {
        self.with(|state| {
            state.beginning = beginning;
            state.delivered = Some((Instant::now(), assigned));
        });
    }

    async fn asked(&self) -> Result<Assigned, String> {
        let beginning = self.with(|state| state.beginning.clone());
        let message = beginning.message();
        let request = Resolve {
            volume_id: message.volume_id.clone(),
            pod: message.pod.clone(),
            secret_provider_class: message.secret_provider_class.clone(),
            deadline_ms: u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX),
        };
        let assignment = self.driver.resolve(request, DEADLINE).await;
        self.judge(assignment.as_ref().err());
        let assignment = assignment.map_err(|error| error.to_string())?;
        self.followed(&beginning, assignment).await
    }

    /// The administrator's no counts once it was said twice; anything else is an outage, or the class's own fault.
    fn judge(&self, error: Option<&DriverCallError>) {
        let denial = match error {
            Some(DriverCallError::Call(CallError::Refused(refusal)))
                if refusal.code() == Code::PermissionDenied =>
            {
                Some(refusal.to_string())
            }
            Some(_) | None => None,
        };
        let denials = self.with(|state| {
            state.denials = if denial.is_some() { state.denials + 1 } else { 0 };
            state.denials
        });
        if let Some(reason) = denial.filter(|_| denials >= CONFIRMED) {
            self.anew.withdraw(&reason);
        }
    }

    async fn followed(
        &self,
        beginning: &Beginning,
        message: Assignment,
    ) -> Result<Assigned, String> {
        let assigned = Assigned::read(message.clone()).map_err(|error| error.to_string())?;
        if assigned.basis == self.basis {
            return Ok(assigned);
        }
        let checked = self.candidates.check((&self.basis, beginning), &assigned).await;
        checked.map_err(|error| error.to_string())?;
        self.anew.begin(&beginning.with(message));
        Err("the store's settings have changed: another worker goes on with them".to_owned())
    }

    /// Once for each reason: it may stay away for long.
    fn note(&self, reason: &str) {
        self.with(|state| {
            if state.told != reason {
                reason.clone_into(&mut state.told);
                if !reason.is_empty() {
                    tracing::warn!(reason, "the class is not read: the volume keeps what it has");
                }
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClassSource for AssignedClasses {
    fn class<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUp<'a> {
        Box::pin(async move {
            let delivered = self.with(|state| state.delivered.take());
            let delivered = delivered.filter(|(at, _)| at.elapsed() < IS_NEW);
            let assigned = match delivered {
                Some((_, assigned)) => Ok(assigned),
                None => self.asked().await,
            };
            match assigned {
                Ok(assigned) => {
                    self.note("");
                    Ok(Arc::new(assigned.class(namespace, name)))
                }
                Err(reason) => {
                    self.note(&reason);
                    Err(ClassError::Unavailable { reason })
                }
            }
        })
    }
}
