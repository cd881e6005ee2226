//! The volume's class: as the driver just brought it, then asked for again with each refresh.
//!
//! Invariant: while the driver or `sotto-node` is away, or the class is not as it should be, it can't be read, and the
//! volume keeps what it has. What the administrator doesn't allow any more, confirmed once, is given up. A class and
//! the settings that it came with stay together: the volume goes over to both at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sotto_core::clock::milliseconds;
use sotto_core::identity::{ClassName, Namespace};
use sotto_handoff::link::CallError;
use sotto_handoff::message::{Code, Resolve};
use sotto_volume::classes::{ClassError, ClassNow, ClassSource, LookUp, LookUpNow};
use sotto_volume::driver::{DriverCallError, DriverCalls};
use sotto_volume::volumes::Settings;
use tokio::time::Instant;

use crate::assignment::Assigned;
use crate::beginning::Beginning;
use crate::candidate::Candidates;
use crate::withdrawal::Withdrawal;

/// How long driver and `sotto-node` may take; the volume's refresh waits for it.
const DEADLINE: Duration = Duration::from_secs(5);
/// For how long what a Prepare brought is what the class is.
const IS_NEW: Duration = Duration::from_secs(10);

/// Denials in a row.
const CONFIRMED: u32 = 2;

/// An assignment that can be followed, with its settings.
pub type Followed = (Assigned, Arc<Settings>);

/// The class of one volume.
pub struct AssignedClasses {
    driver: DriverCalls,
    withdrawal: Withdrawal,
    candidates: Candidates,
    state: Mutex<State>,
}

struct State {
    beginning: Beginning,
    delivered: Option<(Instant, Followed)>,
    /// The last ones that were followed: while a volume tries to go over to them they must stay the same.
    settings: Arc<Settings>,
    told: String,
    /// In a row.
    denials: u32,
}

impl AssignedClasses {
    /// For a volume that begins so.
    #[must_use]
    pub fn new(
        driver: DriverCalls,
        withdrawal: Withdrawal,
        (candidates, settings): (Candidates, Arc<Settings>),
        beginning: Beginning,
    ) -> Self {
        let (delivered, told, denials) = (None, String::new(), 0);
        let state = State { beginning, delivered, settings, told, denials };
        Self { driver, withdrawal, candidates, state: Mutex::new(state) }
    }

    /// Makes the settings of assignments.
    #[must_use]
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// A Prepare brought this: it answers the next question.
    pub fn deliver(&self, beginning: Beginning, followed: Followed) {
        self.with(|state| {
            state.beginning = beginning;
            state.delivered = Some((Instant::now(), followed));
        });
    }

    async fn asked(&self) -> Result<Followed, String> {
        let beginning = self.with(|state| state.beginning.clone());
        let message = beginning.message();
        let request = Resolve {
            volume_id: message.volume_id.clone(),
            pod: message.pod.clone(),
            secret_provider_class: message.secret_provider_class.clone(),
            deadline_ms: milliseconds(DEADLINE),
        };
        let assignment = self.driver.resolve(request, DEADLINE).await;
        self.judge(assignment.as_ref().err());
        let assignment = assignment.map_err(|error| error.to_string())?;
        let assigned = Assigned::read(assignment.clone()).map_err(|error| error.to_string())?;
        let settings = self.candidates.settings(&assigned, assignment).await;
        Ok((assigned, settings.map_err(|error| error.to_string())?))
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
            self.withdrawal.withdraw(&reason);
        }
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
        Box::pin(async { Ok(self.class_now(namespace, name).await?.class) })
    }

    fn class_now<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUpNow<'a> {
        Box::pin(async move {
            let delivered = self.with(|state| state.delivered.take());
            let delivered = delivered.filter(|(at, _)| at.elapsed() < IS_NEW);
            let followed = match delivered {
                Some((_, followed)) => Ok(followed),
                None => self.asked().await,
            };
            match followed {
                Ok((assigned, settings)) => {
                    self.note("");
                    self.with(|state| state.settings = Arc::clone(&settings));
                    let class = Arc::new(assigned.class(namespace, name));
                    Ok(ClassNow { class, settings: Some(settings) })
                }
                Err(reason) => {
                    self.note(&reason);
                    Err(ClassError::Unavailable { reason })
                }
            }
        })
    }
}
