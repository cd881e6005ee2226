//! A volume that another agent served: the same generation shows the same content, or has another number.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sotto_handoff::message::{Prepare, Prepared, Wanted};

use super::driver::FakeDriver;
use super::fake_store::Term;
use super::fixture::{Fixture, fixture};
use super::kernel::{FIRST_FILE, Kernel, file_of};

const ESTALE: i32 = 116;

/// What the driver tells the next agent.
fn over(fixture: &Fixture, shown: &Prepared) -> Prepare {
    Prepare {
        generation: shown.generation,
        layout: shown.layout,
        content: shown.content,
        objects: shown.objects.clone(),
        last_generation: shown.generation,
        ..fixture.message("csi-1")
    }
}

async fn next_agent() -> (Fixture, std::sync::Arc<FakeDriver>) {
    let fixture = fixture();
    let driver = FakeDriver::linked(&fixture);
    (fixture, driver)
}

async fn shows(kernel: &Kernel, generation: u64, value: &str) {
    let turned = async {
        while kernel.open(file_of(generation)).await != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), turned).await.expect("it turns");
    assert_eq!(kernel.read(file_of(generation)).unwrap(), value);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_keeps_its_number() {
    let shown = fixture().prepare("csi-1").await.unwrap();
    let (fixture, driver) = next_agent().await;
    let prepared = fixture.prepare_with(over(&fixture, &shown)).await.unwrap();
    assert_eq!(prepared, shown);
    let kernel = driver.serve(&fixture, "csi-1").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(kernel.read(FIRST_FILE).unwrap(), "canary-password");
    assert_eq!(kernel.open(file_of(2)).await, ESTALE, "and nothing turns");
    assert_eq!(fixture.store.counts().1, 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_mount_shows_is_read_once_more_and_then_turned_from() {
    let shown = fixture().prepare("csi-1").await.unwrap();
    let (fixture, driver) = next_agent().await;
    fixture.store.version.store(3, Ordering::SeqCst);
    let prepared = fixture.prepare_with(over(&fixture, &shown)).await.unwrap();
    assert_eq!(prepared, shown, "though the store has something newer");
    let kernel = driver.serve(&fixture, "csi-1").await;
    shows(&kernel, 2, "canary-password10").await;
    assert_eq!(kernel.read(FIRST_FILE).unwrap(), "canary-password", "for who has it open");
    assert_eq!(fixture.store.counts(), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_any_more_gets_a_number_that_nobody_knows() {
    let shown = fixture().prepare("csi-1").await.unwrap();
    let (fixture, driver) = next_agent().await;
    let (life, most) = (Duration::from_secs(600), Duration::from_secs(3_600));
    *fixture.store.lease.lock().unwrap() = Some(Term { life, most });
    let prepared = fixture.prepare_with(over(&fixture, &shown)).await.unwrap();
    assert_eq!((prepared.generation, prepared.layout), (2, shown.layout));
    assert_ne!(prepared.content, shown.content);
    let kernel = driver.serve(&fixture, "csi-1").await;
    assert_eq!(kernel.open(FIRST_FILE).await, ESTALE);
    // So that watchers hear of it.
    shows(&kernel, 3, "canary-password").await;
}

#[tokio::test(start_paused = true)]
async fn a_number_that_was_only_tried_is_not_used_again() {
    let shown = fixture().prepare("csi-1").await.unwrap();
    let (fixture, driver) = next_agent().await;
    fixture.store.version.store(1, Ordering::SeqCst);
    let tried = Prepare { last_generation: 5, ..over(&fixture, &shown) };
    fixture.prepare_with(tried).await.unwrap();
    let kernel = driver.serve(&fixture, "csi-1").await;
    shows(&kernel, 6, "canary-password8").await;
}

#[tokio::test(start_paused = true)]
async fn where_a_turn_was_cut_short_both_generations_are_there_and_it_is_made_again() {
    let shown = fixture().prepare("csi-1").await.unwrap();
    let other = fixture();
    other.store.version.store(1, Ordering::SeqCst);
    let wanted = other.prepare("csi-1").await.unwrap();
    let (fixture, driver) = next_agent().await;
    fixture.store.version.store(2, Ordering::SeqCst);
    let Prepared { layout, content, objects, .. } = wanted.clone();
    let wanted = Wanted { generation: 2, layout, content, objects };
    let cut = Prepare { wanted: Some(wanted), last_generation: 2, ..over(&fixture, &shown) };
    let prepared = fixture.prepare_with(cut).await.unwrap();
    assert_eq!((prepared.generation, prepared.content), (2, content));
    let kernel = driver.serve(&fixture, "csi-1").await;
    assert_eq!(kernel.read(file_of(1)).unwrap(), "canary-password");
    assert_eq!(kernel.read(file_of(2)).unwrap(), "canary-password8");
    // What is newer still comes without waiting for the next refresh.
    shows(&kernel, 3, "canary-password9").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_shown_a_moment_ago_can_be_read_for_its_grace_time() {
    let (first, other) = (fixture().prepare("csi-1").await.unwrap(), fixture());
    other.store.version.store(1, Ordering::SeqCst);
    let shown = Prepared { generation: 2, ..other.prepare("csi-1").await.unwrap() };
    let (fixture, driver) = next_agent().await;
    fixture.store.version.store(1, Ordering::SeqCst);
    let Prepared { generation, layout, content, objects, .. } = first;
    let older = vec![Wanted { generation, layout, content, objects }];
    let message = Prepare { older, ..over(&fixture, &shown) };
    assert_eq!(fixture.prepare_with(message).await.unwrap(), shown);
    let kernel = driver.serve(&fixture, "csi-1").await;
    assert_eq!(kernel.read(file_of(1)).unwrap(), "canary-password");
    assert_eq!(kernel.read(file_of(2)).unwrap(), "canary-password8");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_of_counts_as_changed() {
    let shown = fixture().prepare("csi-1").await.unwrap();
    let (fixture, _driver) = next_agent().await;
    // From a driver or an agent of before.
    let unknown = Prepare { content: 0, objects: Vec::new(), ..over(&fixture, &shown) };
    assert_eq!(fixture.prepare_with(unknown).await.unwrap().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_held_ready_is_fetched_anew_once_the_mount_shows_something_else() {
    let (shown, other) = (fixture().prepare("csi-1").await.unwrap(), fixture());
    let (fixture, driver) = next_agent().await;
    fixture.prepare_with(over(&fixture, &shown)).await.unwrap();
    fixture.prepare_with(over(&fixture, &shown)).await.unwrap();
    assert_eq!(fixture.store.counts().1, 1, "still the same");
    // The other agent turns: to the same number and the same names as it might have itself.
    other.store.version.store(1, Ordering::SeqCst);
    let turned = other.prepare("csi-1").await.unwrap();
    let turned = Prepared { generation: 2, ..turned };
    fixture.store.version.store(1, Ordering::SeqCst);
    let prepared = fixture.prepare_with(over(&fixture, &turned)).await.unwrap();
    assert_eq!(prepared, turned);
    let kernel = driver.serve(&fixture, "csi-1").await;
    assert_eq!(kernel.read(file_of(2)).unwrap(), "canary-password8");
}
