//! The filter on a paused clock.

use std::time::Duration;

use sotto_core::identity::{Namespace, PodName};

use super::*;
use crate::events::{PodReference, Rate, Severity};

const WINDOW: Duration = Duration::from_secs(300);
const POD_EVERY: Duration = Duration::from_secs(60);

fn settings() -> Settings {
    Settings {
        window: WINDOW,
        remembered: 8,
        pod: Rate { burst: 3, every: POD_EVERY },
        node: Rate { burst: 5, every: Duration::from_secs(1) },
        ..Settings::default()
    }
}

fn event(pod: &str, message: &str) -> PodEvent {
    PodEvent {
        pod: PodReference {
            namespace: Namespace::parse("shop").unwrap(),
            name: PodName::parse("web-0").unwrap(),
            uid: PodUid::parse(pod).unwrap(),
        },
        severity: Severity::Warning,
        reason: "SecretsUnavailable",
        message: message.to_owned(),
    }
}

fn sends(filter: &mut Filter, event: PodEvent) -> bool {
    matches!(filter.admit(event, Instant::now()), Verdict::Send(_))
}

#[tokio::test(start_paused = true)]
async fn the_same_event_is_sent_once_a_window_with_its_count() {
    let mut filter = Filter::new(settings(), Instant::now());
    let Verdict::Send(key) = filter.admit(event("a", "store down"), Instant::now()) else {
        panic!("the first was not sent")
    };
    assert_eq!(filter.due(&key).unwrap().count, 1);
    filter.sent(&key, "web-0.1".to_owned());
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(10)).await;
        let verdict = filter.admit(event("a", "store down"), Instant::now());
        assert_eq!(verdict, Verdict::Repeated);
        assert_eq!(filter.over(Instant::now()), []);
    }
    tokio::time::advance(WINDOW).await;
    assert_eq!(filter.over(Instant::now()), std::slice::from_ref(&key));
    let due = filter.due(&key).unwrap();
    assert_eq!((due.count, due.object.as_deref()), (21, Some("web-0.1")));
    tokio::time::advance(WINDOW).await;
    assert_eq!(filter.over(Instant::now()), [], "nothing happened since: it is forgotten");
    assert!(sends(&mut filter, event("a", "store down")), "and would be new");
}

#[tokio::test(start_paused = true)]
async fn another_pod_reason_or_message_is_another_event() {
    let mut filter = Filter::new(settings(), Instant::now());
    assert!(sends(&mut filter, event("a", "store down")));
    assert!(sends(&mut filter, event("b", "store down")));
    assert!(sends(&mut filter, event("a", "sealed")));
    let other = PodEvent { reason: "Other", ..event("a", "store down") };
    assert!(sends(&mut filter, other));
}

#[tokio::test(start_paused = true)]
async fn one_pod_cannot_use_up_what_others_need() {
    let mut filter = Filter::new(settings(), Instant::now());
    let sent = (0..100).filter(|n| sends(&mut filter, event("loud", &n.to_string()))).count();
    assert_eq!(sent, 3);
    assert!(sends(&mut filter, event("quiet", "x")));
    tokio::time::advance(POD_EVERY).await;
    assert!(sends(&mut filter, event("loud", "later")));
    assert!(!sends(&mut filter, event("loud", "again")));
}

#[tokio::test(start_paused = true)]
async fn the_whole_node_is_limited_too() {
    let mut filter = Filter::new(settings(), Instant::now());
    let sent = (0..50).filter(|n| sends(&mut filter, event(&format!("p{n}"), "x"))).count();
    assert_eq!(sent, 5);
    tokio::time::advance(Duration::from_secs(2)).await;
    let sent = (50..99).filter(|n| sends(&mut filter, event(&format!("p{n}"), "x"))).count();
    assert_eq!(sent, 2);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_refused_for_its_rate_is_not_remembered_as_sent() {
    let mut filter = Filter::new(settings(), Instant::now());
    for n in 0..3 {
        assert!(sends(&mut filter, event("a", &n.to_string())));
    }
    assert_eq!(filter.admit(event("a", "late"), Instant::now()), Verdict::Limited);
    tokio::time::advance(POD_EVERY).await;
    assert!(sends(&mut filter, event("a", "late")));
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let mut filter = Filter::new(settings(), Instant::now());
    for n in 0..10_000 {
        filter.admit(event(&format!("p{n}"), "x"), Instant::now());
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    assert!(filter.seen.len() <= 8, "{}", filter.seen.len());
    assert!(filter.pods.len() <= MOST_PODS, "{}", filter.pods.len());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_could_not_be_sent_is_new_the_next_time() {
    let mut filter = Filter::new(settings(), Instant::now());
    let Verdict::Send(key) = filter.admit(event("a", "x"), Instant::now()) else { panic!() };
    filter.forget(&key);
    assert!(sends(&mut filter, event("a", "x")));
}
