//! An event as the API server stores it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use sotto_core::clock::Clock;

use super::filter::Due;
use super::{Reporter, Severity};
use crate::api_error::ApiError;
use crate::calls::{CREATE_EVENT, PATCH_EVENT};
use crate::client::{Cluster, within};

/// Longest name of an object.
const LONGEST_NAME_BYTES: usize = 253;
/// What follows the pod's name in an event's: a dot and sixteen hex digits.
const SUFFIX_BYTES: usize = 17;

pub(super) struct Writer {
    client: kube::Client,
    reporter: Reporter,
    request_deadline: Duration,
    clock: Arc<dyn Clock>,
    names: RandomState,
}

impl Writer {
    pub(super) fn new(
        cluster: &Cluster,
        reporter: Reporter,
        request_deadline: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (client, names) = (cluster.client(), RandomState::new());
        Self { client, reporter, request_deadline, clock, names }
    }

    /// Creates the event under `name`, or counts it up if it was created before. Safe to repeat with
    /// the same name.
    pub(super) async fn write(&self, due: &Due, name: &str) -> Result<(), ApiError> {
        if due.object.is_some() {
            match self.count_up(due, name).await {
                // Events live for an hour; this one was dropped in between.
                Err(ApiError::NotFound { .. }) => {}
                result => return result,
            }
        }
        self.create(due, name).await
    }

    async fn create(&self, due: &Due, name: &str) -> Result<(), ApiError> {
        let event = self.event(due, name);
        let api = self.api(due);
        let (parameters, deadline) = (PostParams::default(), self.request_deadline);
        match within(CREATE_EVENT, deadline, api.create(&parameters, &event)).await {
            // The answer to an earlier try was lost; the event is there.
            Ok(_) | Err(ApiError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn count_up(&self, due: &Due, name: &str) -> Result<(), ApiError> {
        let patch = Patch::Merge(json!({"count": due.count, "lastTimestamp": self.now()}));
        let api = self.api(due);
        let (parameters, deadline) = (PatchParams::default(), self.request_deadline);
        within(PATCH_EVENT, deadline, api.patch(name, &parameters, &patch)).await.map(drop)
    }

    fn api(&self, due: &Due) -> Api<Event> {
        Api::namespaced(self.client.clone(), due.event.pod.namespace.as_str())
    }

    fn now(&self) -> Time {
        let seconds = i64::try_from(self.clock.unix_seconds()).unwrap_or(i64::MAX);
        Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    fn event(&self, due: &Due, name: &str) -> Event {
        let pod = &due.event.pod;
        let now = self.now();
        let Reporter { component, node } = self.reporter.clone();
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(pod.namespace.to_string()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(pod.namespace.to_string()),
                name: Some(pod.name.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectReference::default()
            },
            type_: Some(
                match due.event.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            reason: Some(due.event.reason.to_owned()),
            message: Some(due.event.message.clone()),
            count: i32::try_from(due.count).ok(),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource {
                component: Some(component.clone()),
                host: Some(node.to_string()),
            }),
            reporting_component: Some(component),
            reporting_instance: Some(node.to_string()),
            ..Event::default()
        }
    }

    /// `<pod>.<16 hex>`, as kubelet names its events; the pod's name is cut if the whole is too long.
    pub(super) fn new_name(&self, pod: &str) -> String {
        let most = pod.len().min(LONGEST_NAME_BYTES - SUFFIX_BYTES);
        let pod = pod[..most].trim_end_matches(['.', '-']);
        let by_chance = self.names.hash_one((std::time::Instant::now(), pod));
        format!("{pod}.{by_chance:016x}")
    }
}
