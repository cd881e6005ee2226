//! The loop that keeps the cache: list, watch, watch again; list again when the version is too old, at
//! the resync, never because of a mere disconnect.
//!
//! kube-runtime's watcher is not used: it repeats a watch that ends at once without any pause, takes a
//! 410 in the status line for an ordinary error and stays with its old version, and has no deadline on
//! a list.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::DynamicObject;
use tokio::time::Instant;

use super::Settings;
use super::cache::Cache;
use super::wire::{self, Entry, Key};
use crate::api_error::ApiError;
use crate::backoff::Backoff;
use crate::calls::{LIST_CLASSES, WATCH_CLASSES};
use crate::client::{Cluster, within};

/// A server that ends its watch this much too late is dead.
const IDLE_MARGIN: Duration = Duration::from_secs(5);
/// A watch that lasted this long was a working one, even if nothing happened.
const WORKING: Duration = Duration::from_secs(10);

pub(super) struct Watch {
    api: Api<DynamicObject>,
    address: String,
    cache: Arc<Cache>,
    settings: Settings,
    backoff: Backoff,
}

/// Why a watch is over.
enum End {
    /// In order, or by a disconnect: go on from the version reached.
    Ended,
    /// It is time to list again.
    Resync,
}

impl Watch {
    pub(super) fn new(cluster: &Cluster, cache: Arc<Cache>, settings: Settings) -> Self {
        let api = Api::all_with(cluster.client(), &wire::resource());
        let backoff = Backoff::new(settings.shortest_pause, settings.longest_pause);
        Self { api, address: cluster.address().to_owned(), cache, settings, backoff }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.list().await {
                Ok((listed, version)) => {
                    tracing::info!(classes = listed.len(), "the SecretProviderClasses were listed");
                    self.cache.replace(listed);
                    self.follow(version).await;
                }
                Err(error) => self.pause_after(&error).await,
            }
        }
    }

    /// Every class, page by page, and the version at which that was true.
    async fn list(&self) -> Result<(HashMap<Key, Entry>, String), ApiError> {
        let mut listed = HashMap::new();
        let mut parameters = ListParams::default().limit(self.settings.page);
        loop {
            let page = self.api.list(&parameters);
            let page = within(LIST_CLASSES, self.settings.request_deadline, page).await?;
            listed.extend(page.items.into_iter().filter_map(read));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version.unwrap_or_default();
                    return Ok((listed, version));
                }
            }
        }
    }

    /// Watches from `version` on until everything must be listed again.
    async fn follow(&mut self, mut version: String) {
        let resync = self.settings.resync;
        let resync_at = Instant::now() + resync / 2 + self.backoff.part_of(resync / 2);
        loop {
            let begun = Instant::now();
            let before = version.clone();
            let end = self.watch(&mut version, resync_at).await;
            if version != before || begun.elapsed() >= WORKING {
                self.backoff.reset();
            }
            match end {
                Ok(End::Resync) => return,
                Ok(End::Ended) if begun.elapsed() >= WORKING => {}
                // Nothing was wrong, but a server that ends every watch at once isn't asked at once.
                Ok(End::Ended) => tokio::time::sleep(self.backoff.next(None)).await,
                Err(ApiError::Gone { .. }) => {
                    tracing::info!(%version, "the watch is too far behind: listing again");
                    tokio::time::sleep(self.backoff.next(None)).await;
                    return;
                }
                // The same line would come again.
                Err(error @ ApiError::Malformed { .. }) => return self.pause_after(&error).await,
                Err(error) => self.pause_after(&error).await,
            }
            if Instant::now() >= resync_at {
                return;
            }
        }
    }

    /// One watch, until it ends; `version` moves on with what it says.
    async fn watch(&self, version: &mut String, resync_at: Instant) -> Result<End, ApiError> {
        let seconds = u32::try_from(self.settings.watch_length.as_secs()).unwrap_or(240).max(1);
        let parameters = WatchParams::default().timeout(seconds);
        let opening = self.api.watch(&parameters, version);
        let events = within(WATCH_CLASSES, self.settings.request_deadline, opening).await?;
        self.says_live();
        let mut events = pin!(events);
        let dead_at = Instant::now() + Duration::from_secs(seconds.into()) + IDLE_MARGIN;
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                () = tokio::time::sleep_until(resync_at) => return Ok(End::Resync),
                () = tokio::time::sleep_until(dead_at) => return Ok(End::Ended),
            };
            match event.map_err(|error| ApiError::from_kube(WATCH_CLASSES, error))? {
                Some(event) => self.apply(event, version)?,
                None => return Ok(End::Ended),
            }
        }
    }

    fn apply(
        &self,
        event: WatchEvent<DynamicObject>,
        version: &mut String,
    ) -> Result<(), ApiError> {
        let seen = match &event {
            WatchEvent::Added(object)
            | WatchEvent::Modified(object)
            | WatchEvent::Deleted(object) => object.metadata.resource_version.clone(),
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version.clone()),
            WatchEvent::Error(status) => return Err(ApiError::from_status(WATCH_CLASSES, status)),
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if let Some((key, entry)) = read(object) {
                    self.cache.apply(key, entry);
                }
            }
            WatchEvent::Deleted(object) => {
                if let Some(key) = wire::key(&object) {
                    self.cache.remove(key);
                }
            }
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
        }
        if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
            *version = seen;
        }
        Ok(())
    }

    fn says_live(&self) {
        if self.cache.live() {
            tracing::info!(address = %self.address, "the SecretProviderClasses are watched again");
        }
    }

    async fn pause_after(&mut self, error: &ApiError) {
        let pause = self.backoff.next(error.retry_after());
        if self.cache.behind(error) {
            tracing::warn!(address = %self.address, %error, ?pause,
                "the SecretProviderClasses can't be watched: what was seen is served, and it is \
                 tried again until it works");
        } else {
            tracing::debug!(%error, ?pause, "still no watch");
        }
        tokio::time::sleep(pause).await;
    }
}

fn read(object: DynamicObject) -> Option<(Key, Entry)> {
    let key = wire::key(&object)?;
    let entry = wire::entry(&key, object);
    if let Err(reason) = &entry {
        tracing::warn!(namespace = %key.0, class = %key.1, %reason, "a class can't be used");
    }
    Some((key, entry))
}
