//! Events over the wire.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sotto_core::clock::FixedClock;
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::events::{Counts, Events, LONGEST_MESSAGE_BYTES, Reporter, Settings};

use crate::kit::{Task, cluster, event, node, until};

const EVENTS: &str = "events";

fn settings() -> Settings {
    Settings { shortest_pause: Duration::from_millis(5), ..Settings::default() }
}

async fn started(server: &FakeApiServer, settings: Settings) -> (Events, Task) {
    let reporter = Reporter { component: "sotto-node".to_owned(), node: node() };
    let clock = Arc::new(FixedClock(1_800_000_000));
    let (events, sender) =
        Events::start_with_clock(&cluster(server).await, reporter, settings, clock);
    (events, Task::spawn(sender))
}

#[tokio::test]
async fn an_event_is_written_as_kubectl_describe_shows_it() {
    let server = FakeApiServer::start().await.unwrap();
    let (events, _task) = started(&server, settings()).await;
    events.report(event("store main can't be reached\n: try\u{1b}[31m later"));
    server.until("an event", |it| it.objects(EVENTS).len() == 1).await;
    let written = server.requests_of("create", EVENTS).remove(0);
    assert_eq!((written.group.as_str(), written.namespace.as_str()), ("", "shop"));
    let mut body = written.body;
    let name = body["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("web-0.") && name.len() == "web-0.".len() + 16, "{name}");
    body["metadata"].as_object_mut().unwrap().remove("name");
    let expected = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "shop"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "shop",
            "name": "web-0", "uid": "uid-0"},
        "type": "Warning", "reason": "SecretsUnavailable",
        "message": "store main can't be reached : try [31m later",
        "count": 1, "firstTimestamp": "2027-01-15T08:00:00Z",
        "lastTimestamp": "2027-01-15T08:00:00Z",
        "source": {"component": "sotto-node", "host": "node-1"},
        "reportingComponent": "sotto-node", "reportingInstance": "node-1",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_repeated_event_is_one_object_that_counts() {
    let server = FakeApiServer::start().await.unwrap();
    let window = Duration::from_millis(400);
    let (events, _task) = started(&server, Settings { window, ..settings() }).await;
    for _ in 0..10 {
        events.report(event("store main is sealed"));
    }
    let count =
        |server: &FakeApiServer| server.objects(EVENTS).first().map(|it| it["count"].clone());
    server.until("its count", |it| count(it) == Some(json!(10))).await;
    assert_eq!(server.objects(EVENTS).len(), 1);
    assert_eq!(server.requests_of("create", EVENTS).len(), 1);
    until("it is counted", || events.counts().sent == 2).await;
    assert_eq!(events.counts(), Counts { sent: 2, repeated: 9, ..Counts::default() });
}

#[tokio::test]
async fn an_event_that_the_server_dropped_meanwhile_is_created_again() {
    let server = FakeApiServer::start().await.unwrap();
    let window = Duration::from_millis(400);
    let (events, _task) = started(&server, Settings { window, ..settings() }).await;
    events.report(event("sealed"));
    server.until("it", |it| it.objects(EVENTS).len() == 1).await;
    let name = server.objects(EVENTS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    server.delete(EVENTS, "shop", &name);
    events.report(event("sealed"));
    server.until("it again", |it| it.objects(EVENTS).len() == 1).await;
    assert_eq!(server.objects(EVENTS)[0]["count"], 2);
}

#[tokio::test]
async fn a_long_message_is_cut_to_what_the_api_takes() {
    let server = FakeApiServer::start().await.unwrap();
    let (events, _task) = started(&server, settings()).await;
    events.report(event(&"é\u{202e}".repeat(10_000)));
    server.until("an event", |it| it.objects(EVENTS).len() == 1).await;
    let message = server.objects(EVENTS)[0]["message"].as_str().unwrap().to_owned();
    assert!(message.len() <= LONGEST_MESSAGE_BYTES && message.ends_with("..."));
    assert!(!message.contains('\u{202e}'));
}

#[tokio::test]
async fn reporting_never_waits_and_what_does_not_fit_is_counted() {
    let server = FakeApiServer::absent().await.unwrap();
    let settings = Settings { queue: 4, ..settings() };
    let reporter = Reporter { component: "sotto-node".to_owned(), node: node() };
    let (events, _never_polled) = Events::start(&cluster(&server).await, reporter, settings);
    for n in 0..10 {
        events.report(event(&n.to_string()));
    }
    assert_eq!(events.counts(), Counts { dropped_queue_full: 6, ..Counts::default() });
}

#[tokio::test]
async fn more_than_the_rate_is_dropped_and_counted() {
    let server = FakeApiServer::start().await.unwrap();
    let (events, _task) = started(&server, settings()).await;
    for n in 0..15 {
        events.report(event(&n.to_string()));
    }
    until("all were handled", || {
        let counts = events.counts();
        counts.sent + counts.dropped_rate_limited == 15
    })
    .await;
    assert_eq!(events.counts().sent, 10, "a pod's burst");
    assert_eq!(server.objects(EVENTS).len(), 10);
}

#[tokio::test]
async fn a_short_outage_loses_no_event_and_a_retry_makes_no_second_one() {
    let server = FakeApiServer::start().await.unwrap();
    server.fail("create", EVENTS, Fault::RetryAfter { code: 429, seconds: 0 }, 1);
    server.fail("create", EVENTS, Fault::Status(500), 1);
    let (events, _task) = started(&server, settings()).await;
    events.report(event("x"));
    server.until("an event", |it| it.objects(EVENTS).len() == 1).await;
    let tries = server.requests_of("create", EVENTS);
    assert_eq!(tries.len(), 3);
    assert!(tries.iter().all(|one| one.body["metadata"] == tries[0].body["metadata"]));
    until("it is counted", || events.counts().sent == 1).await;
}

#[tokio::test]
async fn what_the_server_refuses_for_good_is_given_up_at_once() {
    let server = FakeApiServer::start().await.unwrap();
    // The namespace is ending.
    server.fail("create", EVENTS, Fault::Status(403), 1);
    let (events, _task) = started(&server, settings()).await;
    events.report(event("x"));
    until("it is given up", || events.counts().failed == 1).await;
    assert_eq!(server.requests_of("create", EVENTS).len(), 1);
    events.report(event("x"));
    server.until("the next is new", |it| it.objects(EVENTS).len() == 1).await;
}

#[tokio::test]
async fn the_task_ends_once_nobody_can_report_any_more() {
    let server = FakeApiServer::start().await.unwrap();
    let (events, task) = started(&server, settings()).await;
    events.report(event("last words"));
    drop(events);
    task.ends().await;
    assert_eq!(server.objects(EVENTS).len(), 1, "what was queued is sent before the end");
}
