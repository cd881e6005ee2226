//! Refreshes that somebody asks for, what becomes of them, and what is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sotto_core::identity::{Namespace, PodName};
use sotto_store::plan::Subject;
use sotto_store::{ObjectError, StoreError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::super::{REFRESH_DEADLINE, Refreshed};
use super::driver::FakeDriver;
use super::fixture::{Fixture, fixture};
use super::kernel::{FIRST_FILE, Kernel, file_of};
use super::{main, no_such_secret};

const EACCES: i32 = 13;

async fn refreshed(fixture: &Fixture) -> Vec<Refreshed> {
    let pod = crate::token::testing::pod();
    let answers = fixture.volumes.refresh(&pod.namespace, &pod.pod_name).await;
    answers.into_iter().map(|answer| answer.result).collect()
}

async fn served() -> (Fixture, Kernel) {
    let fixture = fixture();
    let driver = FakeDriver::linked(&fixture);
    fixture.prepare("csi-1").await.unwrap();
    let kernel = driver.serve(&fixture, "csi-1").await;
    (fixture, kernel)
}

fn refreshes(fixture: &Fixture, result: &str) -> u64 {
    let name = format!("sotto_refreshes_total{{store=\"main\",result=\"{result}\"}}");
    fixture.metric(&name)
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_when_the_new_value_can_be_read() {
    let (fixture, kernel) = served().await;
    let began = Instant::now();
    assert_eq!(refreshed(&fixture).await, [Refreshed::Unchanged]);
    fixture.store.version.fetch_add(1, Ordering::SeqCst);
    assert_eq!(refreshed(&fixture).await, [Refreshed::Changed]);
    assert_eq!(kernel.read(file_of(2)).unwrap(), "canary-password8");
    assert!(began.elapsed() < REFRESH_DEADLINE, "not when it would have been due");
    assert_eq!(fixture.store.counts(), (1, 3, 0));
    assert_eq!((refreshes(&fixture, "unchanged"), refreshes(&fixture, "changed")), (1, 1));
    assert_eq!(fixture.metric("sotto_rotations_total{result=\"ok\"}"), 1);
    assert_eq!(fixture.metric("sotto_logins_total{store=\"main\",result=\"ok\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_once_it_is_confirmed_and_carried_out() {
    let (fixture, kernel) = served().await;
    let subject = Subject::from(&crate::token::testing::pod());
    let denied = ObjectError::Denied { store: main(), subject, path: "x".to_owned() };
    fixture.store.refuse_object("password", denied);
    assert_eq!(refreshed(&fixture).await, [Refreshed::Refused]);
    assert_eq!(kernel.read(FIRST_FILE), Err(EACCES));
    assert_eq!((fixture.store.counts().1, refreshes(&fixture, "refused")), (3, 2), "asked twice");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_counted_and_so_is_its_end() {
    let (fixture, kernel) = served().await;
    *fixture.store.down.lock().unwrap() = Some(StoreError::Sealed { store: main() });
    assert_eq!(refreshed(&fixture).await, [Refreshed::Outage]);
    assert_eq!(kernel.read(FIRST_FILE).unwrap(), "canary-password");
    let stale = "sotto_volumes_not_fresh{state=\"stale\"}";
    assert_eq!((refreshes(&fixture, "outage"), fixture.metric(stale)), (1, 1));
    *fixture.store.down.lock().unwrap() = None;
    assert_eq!(refreshed(&fixture).await, [Refreshed::Unchanged]);
    assert_eq!(fixture.metric(stale), 0);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_ends_is_no_longer_counted_among_the_stale() {
    let (fixture, _kernel) = served().await;
    *fixture.store.down.lock().unwrap() = Some(StoreError::Sealed { store: main() });
    refreshed(&fixture).await;
    fixture.release("csi-1").await.unwrap();
    assert_eq!(fixture.metric("sotto_volumes_not_fresh{state=\"stale\"}"), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_has_a_store_asked_that_said_when_to_come_back() {
    let (fixture, _kernel) = served().await;
    let retry_after = Some(Duration::from_secs(60));
    *fixture.store.down.lock().unwrap() =
        Some(StoreError::RateLimited { store: main(), retry_after });
    assert_eq!(refreshed(&fixture).await, [Refreshed::Outage]);
    let asked = fixture.store.counts().1;
    for _ in 0..50 {
        assert_eq!(refreshed(&fixture).await, [Refreshed::Outage]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(fixture.store.counts().1, asked);
    *fixture.store.down.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(refreshed(&fixture).await, [Refreshed::Unchanged]);
}

#[tokio::test(start_paused = true)]
async fn a_first_publish_may_ask_a_store_that_does_not_answer_and_opens_the_gate_again() {
    let (fixture, _kernel) = served().await;
    let retry_after = Some(Duration::from_secs(60));
    let busy = StoreError::RateLimited { store: main(), retry_after };
    *fixture.store.down.lock().unwrap() = Some(busy.clone());
    refreshed(&fixture).await;
    let (_, message) = super::said(fixture.prepare("csi-2").await);
    assert_eq!(message, busy.to_string(), "its event says what is wrong");
    *fixture.store.down.lock().unwrap() = None;
    fixture.prepare("csi-2").await.unwrap();
    assert_eq!(refreshed(&fixture).await, [Refreshed::Unchanged, Refreshed::NotServed]);
}

#[tokio::test(start_paused = true)]
async fn questions_at_once_share_one_attempt_and_each_is_asked_after_it_came() {
    let (fixture, _kernel) = served().await;
    let hold = Arc::new(Semaphore::new(0));
    *fixture.store.hold_fetch.lock().unwrap() = Some(Arc::clone(&hold));
    let first = tokio::spawn({
        let volumes = fixture.volumes.clone();
        let pod = crate::token::testing::pod();
        async move { volumes.refresh(&pod.namespace, &pod.pod_name).await }
    });
    while fixture.store.counts().1 < 2 {
        tokio::task::yield_now().await;
    }
    // What is answered from now on must be from an attempt that has not begun.
    let later = futures::future::join_all((0..10).map(|_| refreshed(&fixture)));
    let release = async {
        for _all_have_asked in 0..100 {
            tokio::task::yield_now().await;
        }
        hold.add_permits(2);
    };
    let (later, ()) = tokio::join!(later, release);
    assert!(later.iter().all(|answer| answer == &[Refreshed::Unchanged]));
    assert_eq!(first.await.unwrap()[0].result, Refreshed::Unchanged);
    assert_eq!(fixture.store.counts().1, 3, "one for the first, one for the ten");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_there_or_not_served_is_told_so_at_once() {
    let fixture = fixture();
    assert_eq!(refreshed(&fixture).await, []);
    fixture.prepare("csi-1").await.unwrap();
    assert_eq!(refreshed(&fixture).await, [Refreshed::NotServed]);
    let other = (Namespace::parse("shop").unwrap(), PodName::parse("web-0").unwrap());
    assert_eq!(fixture.volumes.refresh(&other.0, &other.1).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_nobody_waiting_for_longer_than_the_deadline() {
    let (fixture, _kernel) = served().await;
    *fixture.store.hold_fetch.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let began = Instant::now();
    assert_eq!(refreshed(&fixture).await, [Refreshed::Late]);
    assert!(began.elapsed() <= REFRESH_DEADLINE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_optional_object_that_is_gone_is_no_refusal() {
    let fixture = fixture();
    let driver = FakeDriver::linked(&fixture);
    let mut message = fixture.message("csi-1");
    message.optional = true;
    fixture.prepare_with(message).await.unwrap();
    let _kernel = driver.serve(&fixture, "csi-1").await;
    fixture.store.refuse_object("password", no_such_secret("secret/data/payments/db"));
    assert_eq!(refreshed(&fixture).await, [Refreshed::Changed]);
}
