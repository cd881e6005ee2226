//! What volumes do at their stores and with their values, counted.
//!
//! Invariant: labels are a store's name, which the administrator gave, and words of ours.

use std::sync::Arc;

use sotto_core::identity::StoreName;
use sotto_core::rotation::Freshness;
use sotto_runtime::metrics::{self, AgentMetrics, AtStore, State};
use sotto_store::{Fetch, ObjectError, StoreError};

use super::Shared;
use super::demand::Refreshed;
use super::leasing::Prolonged;

const OK: &str = "ok";

impl Shared {
    pub(super) fn count_login(&self, store: &StoreName, result: Result<(), &StoreError>) {
        let result = match result {
            Ok(()) => OK,
            Err(StoreError::LoginRefused { .. } | StoreError::NoSuchRole { .. }) => "refused",
            Err(_) => "outage",
        };
        self.services.metrics.logins.get_or_create(&at(store, result)).inc();
    }

    /// A fetch that logged in anew by itself, or could not.
    pub(super) fn count_login_of(&self, store: &StoreName, fetch: &Fetch, has_new_token: bool) {
        let of_login = |object: &Result<_, ObjectError>| match object {
            Err(ObjectError::Store(
                error @ (StoreError::LoginRefused { .. } | StoreError::NoSuchRole { .. }),
            )) => Some(error.clone()),
            Ok(_) | Err(_) => None,
        };
        if has_new_token {
            self.count_login(store, Ok(()));
        } else if let Some(error) = fetch.objects.iter().find_map(of_login) {
            self.count_login(store, Err(&error));
        }
    }

    pub(super) fn count_refresh(&self, store: &StoreName, result: Refreshed) {
        self.services.metrics.refreshes.get_or_create(&at(store, result.name())).inc();
    }

    pub(super) fn count_prolonged(&self, store: &StoreName, prolonged: &Prolonged) {
        for result in prolonged.renewals() {
            let result = match result {
                Some(Ok(())) => OK,
                Some(Err(StoreError::NoSuchLease { .. } | StoreError::TokenRefused { .. })) => {
                    "gone"
                }
                Some(Err(_)) | None => "failed",
            };
            self.services.metrics.renewals.get_or_create(&at(store, result)).inc();
        }
        if let Some(result) = prolonged.login() {
            self.count_login(store, result);
        }
    }

    pub(super) fn count_rotation(&self, is_done: bool) {
        let result = if is_done { OK } else { "failed" };
        self.services.metrics.rotations.get_or_create(&metrics::Result { result }).inc();
    }
}

fn at(store: &StoreName, result: &'static str) -> AtStore {
    AtStore { store: store.to_string(), result }
}

/// A volume's part in the number of those that are not fresh; taken back when it ends.
#[derive(Default)]
pub(super) struct NotFresh(Option<(Arc<AgentMetrics>, &'static str)>);

impl NotFresh {
    pub(super) fn follow(&mut self, metrics: &Arc<AgentMetrics>, freshness: Freshness) {
        let state = match freshness {
            Freshness::Fresh => None,
            Freshness::Stale => Some("stale"),
            Freshness::Closed => Some("closed"),
        };
        if self.0.as_ref().map(|(_, state)| *state) == state {
            return;
        }
        self.take_back();
        if let Some(state) = state {
            metrics.not_fresh.get_or_create(&State { state }).inc();
            self.0 = Some((Arc::clone(metrics), state));
        }
    }

    fn take_back(&mut self) {
        if let Some((metrics, state)) = self.0.take() {
            metrics.not_fresh.get_or_create(&State { state }).dec();
        }
    }
}

impl Drop for NotFresh {
    fn drop(&mut self) {
        self.take_back();
    }
}
