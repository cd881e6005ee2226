//! All objects of one volume, read in parallel.
//!
//! Invariants: each request is made once, and all its objects come from that one response; at most one new
//! login in a fetch; the values held never exceed the volume's limit, and the bodies held at a time are
//! bounded by the concurrency. When the store as a whole fails, the rest isn't asked for.

mod read;

use std::sync::atomic::{AtomicUsize, Ordering};

use sotto_core::snapshot::Object;
use tokio::time::Instant;

use super::session::OpenBaoSession;
use crate::error::{ObjectError, StoreError};
use crate::plan::{OpenBaoPlan, VolumePlan};
use crate::session::{Fetch, Lease};

use read::{Outcome, Round};

/// Reads everything; see the module's invariants.
pub(super) async fn fetch(session: &OpenBaoSession, plan: &VolumePlan) -> Fetch {
    let other_login = || {
        let (store, subject) = (plan.store.clone(), plan.subject.clone());
        StoreError::OtherLogin { store, subject }
    };
    let Some(source) = plan.source.openbao() else { return Fetch::failed(plan, other_login()) };
    let read =
        if session.owns(plan) { read_all(session, plan, source).await } else { Err(other_login()) };
    match read {
        Ok(outcomes) => assemble(plan, source, outcomes),
        Err(error) => {
            let outcomes = source.requests.iter().map(|_| Outcome::failed(error.clone()));
            assemble(plan, source, outcomes.collect())
        }
    }
}

/// One outcome a request, in the plan's order.
async fn read_all(
    session: &OpenBaoSession,
    plan: &VolumePlan,
    source: &OpenBaoPlan,
) -> Result<Vec<Outcome>, StoreError> {
    let until = Instant::now() + session.shared().timing.fetch;
    let budget = AtomicUsize::new(plan.limits.volume_bytes);
    let mut token = session.token();
    let is_new = token.life.is_over();
    if is_new {
        token = session.log_in(until).await?;
    }
    let round = |token| Round::new(session, plan, source, token, until, &budget);
    let all: Vec<usize> = (0..source.requests.len()).collect();
    let mut outcomes = round(token).read(&all).await;
    let again = to_read_again(&outcomes);
    if again.is_empty() || is_new {
        return Ok(outcomes);
    }
    for outcome in again.iter().map(|request| &outcomes[*request]) {
        budget.fetch_add(outcome.bytes(), Ordering::Relaxed);
    }
    let second = match session.log_in(until).await {
        Ok(token) => round(token).read(&again).await,
        Err(error) => again.iter().map(|_| Outcome::failed(error.clone())).collect(),
    };
    for (request, outcome) in again.into_iter().zip(second) {
        outcomes[request] = outcome;
    }
    Ok(outcomes)
}

/// What the token's end took along: what it could not read any more, and what it had read under a lease,
/// which has died with it.
fn to_read_again(outcomes: &[Outcome]) -> Vec<usize> {
    if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::InvalidToken)) {
        return Vec::new();
    }
    let lost = |outcome: &Outcome| match outcome {
        Outcome::InvalidToken => true,
        Outcome::Read { lease, .. } => lease.as_ref().is_some_and(|lease| lease.id.is_some()),
        Outcome::Failed(_) => false,
    };
    (0..outcomes.len()).filter(|request| lost(&outcomes[*request])).collect()
}

fn assemble(plan: &VolumePlan, source: &OpenBaoPlan, outcomes: Vec<Outcome>) -> Fetch {
    let mut objects: Vec<Option<Result<Object, ObjectError>>> =
        plan.objects.iter().map(|_| None).collect();
    let mut leases: Vec<Lease> = Vec::new();
    for (request, outcome) in outcomes.into_iter().enumerate() {
        let error = match outcome {
            Outcome::Read { objects: read, lease, .. } => {
                leases.extend(lease);
                for (index, object) in read {
                    objects[index] = Some(object);
                }
                continue;
            }
            Outcome::Failed(error) => error,
            Outcome::InvalidToken => token_refused(plan).into(),
        };
        for (index, _) in source.picks_of(request) {
            objects[index] = Some(Err(error.clone()));
        }
    }
    let unread = || Err(token_refused(plan).into());
    Fetch {
        objects: objects.into_iter().map(|object| object.unwrap_or_else(unread)).collect(),
        leases,
    }
}

fn token_refused(plan: &VolumePlan) -> StoreError {
    StoreError::TokenRefused { store: plan.store.clone(), subject: plan.subject.clone() }
}
