//! The watch while the server is busy, slow, silent or away.

use std::time::Duration;

use sotto_core::identity::ClassName;
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::classes::{Classes, Freshness, LookUpError, Settings};
use tokio::time::Instant;

use crate::kit::{CLASSES, LONG, Task, class, cluster, quick, role, shop, until, watched};

fn is_behind(classes: &Classes) -> bool {
    matches!(classes.freshness(), Freshness::Behind { .. })
}

#[tokio::test]
async fn during_an_outage_the_cache_serves_and_afterwards_the_watch_goes_on() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("one", "before"));
    let (classes, _task) = watched(&server, quick()).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    server.go_dark().await;
    until("the outage is noticed", || is_behind(&classes)).await;
    assert_eq!(role(&classes, "one").as_deref(), Some("before"));
    let unknown = classes.look_up(&shop(), &ClassName::parse("new").unwrap()).unwrap_err();
    assert!(matches!(&unknown, LookUpError::Unknown { behind: Some(_), .. }));
    assert!(unknown.to_string().contains("can't be reached"), "{unknown}");
    server.put(CLASSES, class("one", "after"));
    server.come_back().await.unwrap();
    until("it is seen", || role(&classes, "one").as_deref() == Some("after")).await;
    assert_eq!(server.requests_of("list", CLASSES).len(), 1, "no herd of lists after an outage");
}

#[tokio::test]
async fn without_a_server_at_start_it_waits_says_so_and_then_works() {
    let server = FakeApiServer::absent().await.unwrap();
    server.put(CLASSES, class("one", "r"));
    let (classes, watch) = Classes::start(&cluster(&server).await, quick());
    let _task = Task::spawn(watch);
    let why = || match classes.freshness() {
        Freshness::NotSynced { why } => why,
        Freshness::Live | Freshness::Behind { .. } => None,
    };
    until("it says why", || why().is_some()).await;
    let error = classes.look_up(&shop(), &ClassName::parse("one").unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("not been read from the API server yet"), "{text}");
    assert!(text.contains("can't be reached"), "{text}");
    server.come_back().await.unwrap();
    classes.synced(LONG).await.unwrap();
    assert_eq!(role(&classes, "one").as_deref(), Some("r"));
}

#[tokio::test]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    for code in [429, 503] {
        let server = FakeApiServer::start().await.unwrap();
        server.fail("list", CLASSES, Fault::RetryAfter { code, seconds: 1 }, 1);
        let (classes, watch) = Classes::start(&cluster(&server).await, quick());
        let begun = Instant::now();
        let _task = Task::spawn(watch);
        classes.synced(LONG).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1), "{code}: {:?}", begun.elapsed());
        assert_eq!(server.requests_of("list", CLASSES).len(), 2);
    }
}

#[tokio::test]
async fn a_busy_server_in_mid_life_keeps_the_cache() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("one", "r"));
    let (classes, _task) = watched(&server, quick()).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    server.fail("watch", CLASSES, Fault::RetryAfter { code: 429, seconds: 1 }, 1);
    server.cut_watches();
    until("it is noticed", || is_behind(&classes)).await;
    assert_eq!(role(&classes, "one").as_deref(), Some("r"));
    until("it is over", || classes.freshness() == Freshness::Live).await;
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_within_the_deadline() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("one", "r"));
    server.fail("*", CLASSES, Fault::Slow(Duration::from_millis(100)), 2);
    let (classes, _task) = watched(&server, quick()).await;
    assert_eq!(role(&classes, "one").as_deref(), Some("r"));
    server.until("a watch", |it| it.watchers() == 1).await;
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline_and_asked_again() {
    let server = FakeApiServer::start().await.unwrap();
    server.fail("list", CLASSES, Fault::Hang, 1);
    server.fail("watch", CLASSES, Fault::Hang, 1);
    let impatient = Settings { request_deadline: Duration::from_millis(100), ..quick() };
    let (_classes, _task) = watched(&server, impatient).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    assert_eq!(server.requests_of("list", CLASSES).len(), 2);
    assert_eq!(server.requests_of("watch", CLASSES).len(), 2);
}

#[tokio::test]
async fn connections_that_break_and_answers_that_are_no_json_are_tried_again() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("one", "r"));
    server.fail("list", CLASSES, Fault::Disconnect, 1);
    server.fail("list", CLASSES, Fault::Garbage, 1);
    server.fail("list", CLASSES, Fault::Status(500), 1);
    // The CRDs aren't installed yet.
    server.fail("list", CLASSES, Fault::Status(404), 1);
    let (classes, _task) = watched(&server, quick()).await;
    assert_eq!(role(&classes, "one").as_deref(), Some("r"));
    assert_eq!(server.requests_of("list", CLASSES).len(), 5);
}

#[tokio::test]
async fn a_missing_permission_is_said_in_plain_words() {
    let server = FakeApiServer::start().await.unwrap();
    server.allow_only(&serde_json::json!([]));
    let (classes, watch) = Classes::start(&cluster(&server).await, quick());
    let _task = Task::spawn(watch);
    until("it says so", || {
        let look = classes.look_up(&shop(), &ClassName::parse("one").unwrap());
        look.unwrap_err().to_string().contains(
            "sotto-node may not list secretproviderclasses.secrets-store.csi.x-k8s.io: \
             apply the ClusterRole of deploy/base",
        )
    })
    .await;
}
