//! A refresh on its way to the store and back: past the store's gate, counted, and told to whoever asked for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sotto_store::Fetch;

use super::super::demand::Refreshed;
use super::super::gate::Wait;
use super::super::turning::Consequence;
use super::{Done, Owner, Reply, State, answer};

/// How long a refresh may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(60);

/// What came of asking.
pub(super) struct Attempt {
    /// `None`: nothing, in time or at all.
    pub(super) fetch: Option<Fetch>,
    /// Where the store as a whole can't answer: when this volume comes again.
    pub(super) wait: Option<Wait>,
    /// Whether the store was asked.
    was_asked: bool,
}

impl Attempt {
    /// What came before is all there is to show.
    pub(super) fn of_nothing() -> Self {
        let fetch = Fetch { objects: Vec::new(), leases: Vec::new() };
        Self { fetch: Some(fetch), wait: None, was_asked: false }
    }
}

impl Owner {
    pub(super) fn refresh(&mut self, asked: BTreeSet<usize>) {
        let State::Serving { held } = &mut self.state else { return };
        let pace = held.turning.pace();
        let gate = held.settings.gate(&held.plan.store).cloned();
        if let Some(gate) = &gate
            && let Err(wait) = gate.admit(pace)
        {
            let attempt = Attempt { fetch: None, wait: Some(wait), was_asked: false };
            return self.fetched(&asked, attempt);
        }
        held.is_busy = true;
        let is_whole = asked.len() == held.plan.objects.len();
        let whole = is_whole.then(|| Arc::clone(&held.plan));
        let plan = whole.unwrap_or_else(|| Arc::new(held.plan.only(&asked)));
        let (session, shared) = (Arc::clone(&held.session), Arc::clone(&self.shared));
        self.work.push(Box::pin(async move {
            let before = session.token_life().since;
            let fetched = async {
                // A plan names a store of the same set.
                let _turn = gate.as_ref()?.turn().await.ok()?;
                Some(session.fetch(&plan).await)
            };
            let fetch = tokio::time::timeout(FETCH_DEADLINE, fetched).await.ok().flatten();
            if let Some(fetch) = &fetch {
                let has_new_token = session.token_life().since != before;
                shared.count_login_of(&plan.store, fetch, has_new_token);
            }
            let answered = gate.as_ref().is_none_or(|gate| gate.fetched(fetch.as_ref()));
            let wait = gate.filter(|_| !answered).and_then(|gate| gate.wait(pace));
            Done::Fetched(asked, Box::new(Attempt { fetch, wait, was_asked: true }))
        }));
    }

    /// Somebody asks for a refresh now.
    pub(super) fn refresh_on_demand(&mut self, reply: Reply<Refreshed>) {
        match &mut self.state {
            State::Serving { held } => {
                if held.turning.refresh_now() {
                    held.demand.ask(reply);
                } else {
                    // Leases vouch for all that it shows.
                    answer(reply, Ok(Refreshed::Unchanged));
                }
            }
            State::Preparing { .. } | State::Ready { .. } => {
                answer(reply, Ok(Refreshed::NotServed));
            }
        }
    }

    /// Counts an attempt that ended, and tells who asked for it, unless something must happen first.
    pub(super) fn refreshed(&mut self, was_asked: bool, consequence: &Consequence) {
        let State::Serving { held } = &mut self.state else { return };
        let Some(result) = consequence.result else { return };
        if was_asked {
            self.shared.count_refresh(&held.plan.store, result);
        }
        held.not_fresh.follow(&self.shared.services.metrics, held.turning.freshness());
        if !held.turning.is_suspicious() {
            held.demand.ended(result, consequence.is_nothing());
        }
        if held.demand.is_wanted() {
            held.turning.refresh_now();
        }
    }
}

impl Attempt {
    pub(super) fn parts(self) -> (Option<Fetch>, Option<Wait>, bool) {
        (self.fetch, self.wait, self.was_asked)
    }
}
