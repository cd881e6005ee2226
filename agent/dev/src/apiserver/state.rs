//! What the server knows; every change wakes the watchers and whoever waits for a condition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::faults::{Fault, Faults};
use super::objects::Objects;
use super::permissions::Rules;
use super::request::Recorded;

/// A TokenReview that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct TokenReviewRequest<'a> {
    /// `spec.token`.
    pub token: &'a str,
    /// `spec.audiences`.
    pub audiences: &'a [&'a str],
}

pub(super) type TokenReviewAnswer = dyn Fn(&TokenReviewRequest<'_>) -> Value + Send + Sync;

#[derive(Default)]
pub(super) struct Inner {
    pub(super) objects: Objects,
    pub(super) faults: Faults,
    pub(super) requests: Vec<Recorded>,
    pub(super) watchers: usize,
    pub(super) bookmarks: u64,
    pub(super) cuts: u64,
    pub(super) ends: u64,
    pub(super) expirations: u64,
    pub(super) token_review: Option<Arc<TokenReviewAnswer>>,
    pub(super) permissions: Option<Rules>,
}

pub(super) struct State {
    pub(super) bearer: String,
    inner: Mutex<Inner>,
    tick: watch::Sender<u64>,
}

impl State {
    pub(super) fn new(bearer: String) -> Self {
        Self { bearer, inner: Mutex::default(), tick: watch::Sender::new(0) }
    }

    /// Changes something and wakes everyone.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let changed = change(&mut self.lock());
        self.tick.send_modify(|tick| *tick += 1);
        changed
    }

    /// Changes something that nobody waits for.
    pub(super) fn quietly<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.lock())
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.lock())
    }

    pub(super) fn ticks(&self) -> watch::Receiver<u64> {
        self.tick.subscribe()
    }

    /// Records the request; the fault it meets, if any.
    pub(super) fn record(&self, request: &Recorded) -> Option<Fault> {
        self.change(|inner| {
            inner.requests.push(request.clone());
            inner.faults.take(request)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
