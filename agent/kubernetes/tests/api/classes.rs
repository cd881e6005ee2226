//! The watch while the server behaves, and while it behaves oddly but is there.

use std::time::Duration;

use serde_json::json;
use sotto_core::identity::ClassName;
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::classes::{Change, Classes, Freshness, LookUpError, Settings};

use crate::kit::{CLASSES, LONG, Task, class, cluster, quick, role, shop, until, watched};

async fn sees(classes: &Classes, name: &str, wanted: Option<&str>) {
    until(&format!("{name} is {wanted:?}"), || role(classes, name).as_deref() == wanted).await;
}

#[tokio::test]
async fn classes_are_listed_then_followed() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("one", "r1"));
    server.put(CLASSES, class("two", "r2"));
    let (classes, _task) = watched(&server, Settings { page: 1, ..quick() }).await;
    assert_eq!(role(&classes, "one").as_deref(), Some("r1"));
    assert_eq!(role(&classes, "two").as_deref(), Some("r2"));
    assert_eq!(server.requests_of("list", CLASSES).len(), 2, "one request a page");
    server.put(CLASSES, class("one", "changed"));
    sees(&classes, "one", Some("changed")).await;
    server.put(CLASSES, class("three", "r3"));
    sees(&classes, "three", Some("r3")).await;
    server.delete(CLASSES, "shop", "two");
    sees(&classes, "two", None).await;
    assert_eq!(server.requests_of("watch", CLASSES).len(), 1);
    assert_eq!(server.requests_of("list", CLASSES).len(), 2);
}

#[tokio::test]
async fn the_watch_covers_all_namespaces_and_asks_for_bookmarks() {
    let server = FakeApiServer::start().await.unwrap();
    let (_classes, _task) = watched(&server, quick()).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    let watch = server.requests_of("watch", CLASSES).remove(0);
    assert_eq!((watch.namespace.as_str(), watch.version.as_str()), ("", "v1"));
    assert_eq!(watch.query["allowWatchBookmarks"], "true");
    assert_eq!(watch.query["timeoutSeconds"], "240");
}

#[tokio::test]
async fn before_the_first_list_a_class_is_not_said_to_be_unknown() {
    let server = FakeApiServer::start().await.unwrap();
    server.fail("list", CLASSES, Fault::Hang, 1);
    let (classes, watch) = Classes::start(&cluster(&server).await, quick());
    let _task = Task::spawn(watch);
    let name = ClassName::parse("web").unwrap();
    server.until("a list", |it| !it.requests_of("list", CLASSES).is_empty()).await;
    let early = classes.look_up(&shop(), &name);
    assert!(matches!(early, Err(LookUpError::NotSynced { why: None })), "{early:?}");
    assert!(classes.synced(Duration::from_millis(10)).await.is_err());
}

#[tokio::test]
async fn an_unknown_class_and_an_unusable_one_are_told_apart() {
    let server = FakeApiServer::start().await.unwrap();
    let mut wrong = class("wrong", "r");
    wrong["spec"]["parameters"]["objects"] = json!(["not text"]);
    server.put(CLASSES, wrong);
    server.put(CLASSES, class("right", "r"));
    let (classes, _task) = watched(&server, quick()).await;
    assert_eq!(role(&classes, "right").as_deref(), Some("r"), "one bad class hides no other");
    let error = |name: &str| {
        classes.look_up(&shop(), &ClassName::parse(name).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        error("wrong"),
        "SecretProviderClass shop/wrong can't be used: \
         spec.parameters.objects is not text: put it in quotes"
    );
    server.until("a watch", |it| it.watchers() == 1).await;
    assert!(error("none").starts_with("no SecretProviderClass none in namespace shop: create it"));
}

#[tokio::test]
async fn changes_are_told_and_a_slow_reader_is_told_that_it_missed_some() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("one", "r"));
    let (classes, _task) = watched(&server, Settings { changes: 2, ..quick() }).await;
    let mut changes = classes.changes();
    let mut labelled = class("one", "r");
    labelled["metadata"]["labels"] = json!({"only": "a label"});
    server.put(CLASSES, labelled);
    server.put(CLASSES, class("two", "r"));
    let two = Change::Class { namespace: shop(), name: ClassName::parse("two").unwrap() };
    let next = tokio::time::timeout(LONG, changes.next()).await.unwrap();
    assert_eq!(next, Some(two), "a label is no change of the class");
    for n in 0..5 {
        server.put(CLASSES, class(&format!("more-{n}"), "r"));
    }
    sees(&classes, "more-4", Some("r")).await;
    assert_eq!(changes.next().await, Some(Change::Missed));
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_from_where_it_was_without_a_list() {
    let server = FakeApiServer::start().await.unwrap();
    let (classes, _task) = watched(&server, quick()).await;
    let version = server.put(CLASSES, class("one", "r"));
    sees(&classes, "one", Some("r")).await;
    server.cut_watches();
    server.until("another watch", |it| it.requests_of("watch", CLASSES).len() == 2).await;
    let again = server.requests_of("watch", CLASSES).remove(1);
    assert_eq!(again.query["resourceVersion"], version.to_string());
    server.put(CLASSES, class("two", "r"));
    sees(&classes, "two", Some("r")).await;
    assert_eq!(server.requests_of("list", CLASSES).len(), 1);
}

#[tokio::test]
async fn what_happened_while_a_watch_was_cut_is_seen_by_the_next() {
    let server = FakeApiServer::start().await.unwrap();
    let (classes, _task) = watched(&server, quick()).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    server.fail("watch", CLASSES, Fault::Status(500), 3);
    server.cut_watches();
    server.until("failures", |it| it.requests_of("watch", CLASSES).len() >= 3).await;
    server.put(CLASSES, class("meanwhile", "r"));
    sees(&classes, "meanwhile", Some("r")).await;
    assert_eq!(server.requests_of("list", CLASSES).len(), 1);
    assert_eq!(classes.freshness(), Freshness::Live);
}

#[tokio::test]
async fn a_bookmark_moves_the_version_on() {
    let server = FakeApiServer::start().await.unwrap();
    let (_classes, _task) = watched(&server, quick()).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    let version = server.put("others", json!({"metadata": {"name": "x"}}));
    server.bookmark_and_end_watches();
    server.until("another watch", |it| it.requests_of("watch", CLASSES).len() == 2).await;
    let again = server.requests_of("watch", CLASSES).remove(1);
    assert_eq!(again.query["resourceVersion"], version.to_string());
}

#[tokio::test]
async fn a_watch_that_the_server_ends_at_once_is_not_repeated_without_a_pause() {
    let server = FakeApiServer::start().await.unwrap();
    let pause = Duration::from_millis(200);
    let slow = Settings { shortest_pause: pause, longest_pause: pause, ..quick() };
    let (_classes, _task) = watched(&server, slow).await;
    let begun = tokio::time::Instant::now();
    for watches in 1..=3 {
        server.until("a watch", |it| it.requests_of("watch", CLASSES).len() == watches).await;
        server.until("it is open", |it| it.watchers() == 1).await;
        server.end_watches();
    }
    server.until("the last", |it| it.requests_of("watch", CLASSES).len() == 4).await;
    assert!(begun.elapsed() >= pause / 2 * 3, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_version_that_is_gone_is_answered_by_a_new_list() {
    for in_mid_watch in [true, false] {
        let server = FakeApiServer::start().await.unwrap();
        server.put(CLASSES, class("gone", "r"));
        let (classes, _task) = watched(&server, quick()).await;
        server.until("a watch", |it| it.watchers() == 1).await;
        server.delete_unseen(CLASSES, "shop", "gone");
        if in_mid_watch {
            server.expire_watches();
        } else {
            // 410 in the status line of the next watch.
            server.fail("watch", CLASSES, Fault::Status(410), 1);
            server.cut_watches();
        }
        sees(&classes, "gone", None).await;
        assert_eq!(server.requests_of("list", CLASSES).len(), 2, "{in_mid_watch}");
    }
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_answered_by_a_new_list() {
    let server = FakeApiServer::start().await.unwrap();
    let (classes, _task) = watched(&server, quick()).await;
    server.until("a watch", |it| it.watchers() == 1).await;
    server.put(CLASSES, class("new", "r"));
    server.compact();
    sees(&classes, "new", Some("r")).await;
    server.until("a watch again", |it| it.watchers() == 1).await;
}

#[tokio::test]
async fn a_change_that_no_watch_told_is_found_by_the_resync() {
    let server = FakeApiServer::start().await.unwrap();
    server.put(CLASSES, class("lost", "r"));
    let resync = Settings { resync: Duration::from_millis(200), ..quick() };
    let (classes, _task) = watched(&server, resync).await;
    server.delete_unseen(CLASSES, "shop", "lost");
    sees(&classes, "lost", None).await;
}
