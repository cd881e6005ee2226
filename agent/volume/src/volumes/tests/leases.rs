//! Leases and the store's token over hours of a paused clock. There is no driver here, so that no turn is
//! ever completed; `tests/tests/leases.rs` has one.

use std::time::Duration;

use super::fake_store::Term;
use super::fixture::{Fixture, fixture};
use super::kernel::Kernel;
use super::main;
use sotto_store::StoreError;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A volume that is served, with what it has read under a lease of an hour.
async fn leased(most: Duration, token: Option<Term>) -> (Fixture, Kernel) {
    let fixture = fixture();
    *fixture.store.lease.lock().unwrap() = Some(Term { life: HOUR, most });
    *fixture.store.token.lock().unwrap() = token;
    fixture.prepare("csi-1").await.unwrap();
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    (fixture, kernel)
}

fn renewals(fixture: &Fixture, result: &str) -> u64 {
    let name = format!("sotto_lease_renewals_total{{store=\"main\",result=\"{result}\"}}");
    fixture.metric(&name)
}

async fn generation(fixture: &Fixture) -> u64 {
    fixture.prepare("csi-1").await.unwrap().generation
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_over_three_periods_with_one_request_each() {
    let (fixture, _kernel) = leased(YEAR, None).await;
    tokio::time::sleep(130 * MINUTE).await;
    assert_eq!(fixture.store.prolonged(), (3, 0, 0));
    assert_eq!(renewals(&fixture, "ok"), 3);
    assert_eq!(fixture.store.counts(), (1, 1, 0), "nothing was read anew");
    assert_eq!(generation(&fixture).await, 1);
}

#[tokio::test(start_paused = true)]
async fn near_its_maximum_a_lease_is_read_anew_once_and_the_new_one_is_renewed() {
    let (fixture, _kernel) = leased(2 * HOUR, None).await;
    tokio::time::sleep(100 * MINUTE).await;
    assert_eq!((fixture.store.prolonged().0, fixture.store.counts().1), (2, 1));
    tokio::time::sleep(18 * MINUTE).await;
    let counts = fixture.store.counts();
    assert_eq!(counts, (1, 2, 0), "before its end, and the old one was not revoked");
    tokio::time::sleep(42 * MINUTE).await;
    assert_eq!((fixture.store.prolonged().0, fixture.store.counts().1), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_until_it_is_read_anew_in_time() {
    let (fixture, _kernel) = leased(YEAR, None).await;
    *fixture.store.refuse_renewal.lock().unwrap() = Some(StoreError::Sealed { store: main() });
    tokio::time::sleep(48 * MINUTE).await;
    let tries = fixture.store.prolonged().0;
    assert!((10..60).contains(&tries), "{tries} in ten minutes");
    assert_eq!((renewals(&fixture, "failed"), renewals(&fixture, "ok")), (tries as u64, 0));
    assert_eq!(fixture.store.counts().1, 1);
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(fixture.store.counts().1, 2, "ten minutes before its end");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_the_store_no_longer_knows_is_read_anew_at_once() {
    let (fixture, _kernel) = leased(YEAR, None).await;
    *fixture.store.refuse_renewal.lock().unwrap() = Some(StoreError::NoSuchLease { store: main() });
    tokio::time::sleep(44 * MINUTE).await;
    assert_eq!((fixture.store.prolonged().0, fixture.store.counts().1), (1, 2));
    assert_eq!(renewals(&fixture, "gone"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_is_renewed_only_while_a_lease_depends_on_it() {
    let token = Term { life: HOUR, most: YEAR };
    let (with_lease, _kernel) = leased(YEAR, Some(token)).await;
    let without = fixture();
    *without.store.token.lock().unwrap() = Some(token);
    without.prepare("csi-1").await.unwrap();
    let _other = Kernel::serve(&without, "csi-1", false).await.unwrap();
    tokio::time::sleep(130 * MINUTE).await;
    assert_eq!(with_lease.store.prolonged(), (3, 3, 0));
    assert_eq!(without.store.prolonged(), (0, 0, 0));
    assert!(without.store.counts().1 > 1, "it was refreshed");
}

#[tokio::test(start_paused = true)]
async fn near_the_tokens_maximum_a_new_login_reads_anew_what_dies_with_the_old_one() {
    let token = Term { life: HOUR, most: 2 * HOUR };
    let (fixture, _kernel) = leased(YEAR, Some(token)).await;
    tokio::time::sleep(100 * MINUTE).await;
    assert_eq!((fixture.store.prolonged().2, fixture.store.counts().1), (0, 1));
    tokio::time::sleep(18 * MINUTE).await;
    assert_eq!(fixture.store.prolonged().2, 1);
    assert_eq!(fixture.store.counts(), (1, 2, 0), "before the old token's end, which is kept");
}
