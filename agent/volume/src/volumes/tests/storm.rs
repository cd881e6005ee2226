//! A thousand volumes over hours of a paused clock: how often their store is asked, and what they show while
//! it can't answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use sotto_core::limits::Limits;
use sotto_core::rotation::{OnRevoke, RefreshPolicy};
use sotto_handoff::message::{Pod, Prepare};
use sotto_store::StoreError;
use tokio::time::Instant;

use super::super::Deadlines;
use super::driver::FakeDriver;
use super::fake_store::Term;
use super::fixture::{Fixture, fixture_refreshing};
use super::kernel::{FIRST_FILE, Kernel, file_of};
use super::main;
use crate::token::testing::{claims, pod, token_map};

const VOLUMES: usize = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// One login and one read each, an hour.
const STEADY_PER_HOUR: usize = 2 * VOLUMES;
const MOST_PER_MINUTE: usize = 2 * STEADY_PER_HOUR / 60;
const EACCES: i32 = 13;

struct Storm {
    fixture: Fixture,
    kernels: Vec<Kernel>,
    began: Instant,
}

impl Storm {
    /// Refreshed once an hour: no token is good when the next refresh comes.
    async fn begin(max_stale: Duration) -> Self {
        Self::begin_refreshing(HOUR, max_stale).await
    }

    /// A thousand volumes with one secret each, all published at once. The store's tokens live for ten minutes.
    async fn begin_refreshing(interval: Duration, max_stale: Duration) -> Self {
        let limits = Limits { volumes: VOLUMES, ..Limits::default() };
        let refresh = RefreshPolicy { interval, max_stale, on_revoke: OnRevoke::Close };
        let fixture = fixture_refreshing(limits, Deadlines::default(), refresh);
        let driver = FakeDriver::linked(&fixture);
        let token = Term { life: 10 * MINUTE, most: 100 * HOUR };
        *fixture.store.token.lock().unwrap() = Some(token);
        let mut kernels = Vec::new();
        for number in 0..VOLUMES {
            fixture.prepare_with(message(&fixture, number)).await.unwrap();
            kernels.push(driver.serve(&fixture, &format!("csi-{number}")).await);
        }
        fixture.reports.take();
        Self { fixture, kernels, began: Instant::now() }
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn requests(&self, from: Duration, to: Duration) -> usize {
        self.fixture.store.requests_within(self.began + from, self.began + to)
    }

    /// The most requests of any minute since then.
    fn most_a_minute(&self, since: Duration) -> usize {
        let minutes = u32::try_from((self.began.elapsed() - since).as_secs() / 60).unwrap();
        let minute = |at: u32| self.requests(since + at * MINUTE, since + (at + 1) * MINUTE);
        (0..minutes).map(minute).max().unwrap()
    }

    fn down(&self, error: Option<StoreError>) {
        *self.fixture.store.down.lock().unwrap() = error;
    }

    fn assert_readable(&self) {
        for (number, kernel) in self.kernels.iter().enumerate() {
            assert_eq!(kernel.read(FIRST_FILE).as_deref(), Ok("canary-password"), "csi-{number}");
        }
    }

    /// How often each pod was told each reason: `<pod> <reason>`.
    fn told(&self) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::new();
        for report in self.fixture.reports.take() {
            if let Some((pod_and_reason, _)) = report.split_once(':') {
                *told.entry(pod_and_reason.to_owned()).or_default() += 1;
            }
        }
        told
    }

    fn not_fresh(&self, state: &str) -> u64 {
        self.fixture.metric(&format!("sotto_volumes_not_fresh{{state=\"{state}\"}}"))
    }
}

fn message(fixture: &Fixture, number: usize) -> Prepare {
    let (name, uid) = (format!("web-{number}"), format!("uid-{number}"));
    let mut claims = claims("bao");
    claims["kubernetes.io"]["pod"] = json!({"name": name, "uid": uid});
    let token = fixture.signer.sign(&fixture.signer.header(), &claims);
    let pod = pod();
    Prepare {
        volume_id: format!("csi-{number}"),
        pod: Some(Pod {
            namespace: pod.namespace.into(),
            name,
            uid,
            service_account: pod.service_account.into(),
            node: pod.node.into(),
        }),
        secret_provider_class: "one-secret".to_owned(),
        service_account_tokens: token_map("bao", &token),
        ..Prepare::default()
    }
}

fn sealed() -> StoreError {
    StoreError::Sealed { store: main() }
}

#[tokio::test(start_paused = true)]
async fn unchanged_they_cost_one_login_and_one_read_an_hour_each_evenly_spread() {
    let storm = Storm::begin(4 * HOUR).await;
    storm.pass(5 * HOUR).await;
    for hour in 1..5 {
        let asked = storm.requests(hour * HOUR, (hour + 1) * HOUR);
        assert!(asked <= STEADY_PER_HOUR, "{asked} in hour {hour}");
        assert!(asked >= STEADY_PER_HOUR - 2, "{asked} in hour {hour}: they weren't refreshed");
    }
    let most = storm.most_a_minute(HOUR);
    assert!(most <= STEADY_PER_HOUR / 60 * 4 / 3, "{most} in one minute");
    assert_eq!(storm.fixture.store.prolonged(), (0, 0, 0), "no token was renewed");
    storm.assert_readable();
}

#[tokio::test(start_paused = true)]
async fn each_minute_they_are_asked_for_in_sixty_small_bursts_and_at_no_other_time() {
    const BURST: Duration = Duration::from_millis(2);
    const MOST_AT_ONCE: usize = VOLUMES / 60 * 4 / 3;
    let storm = Storm::begin_refreshing(MINUTE, HOUR).await;
    storm.pass(5 * MINUTE).await;
    let mut times = storm.fixture.store.times_of_requests();
    times.retain(|at| *at >= storm.began + 2 * MINUTE && *at < storm.began + 4 * MINUTE);
    assert_eq!(times.len(), 2 * VOLUMES, "each volume, each minute");
    let bursts: Vec<usize> =
        times.chunk_by(|one, next| *next - *one < BURST).map(<[Instant]>::len).collect();
    assert!((120..=121).contains(&bursts.len()), "{} bursts", bursts.len());
    assert!(bursts.iter().all(|burst| *burst <= MOST_AT_ONCE), "{bursts:?}");
    storm.assert_readable();
}

#[tokio::test(start_paused = true)]
async fn a_429_to_all_is_obeyed_and_no_burst_follows() {
    let storm = Storm::begin(6 * HOUR).await;
    storm.pass(2 * HOUR).await;
    let pause = 10 * MINUTE;
    let busy = StoreError::RateLimited { store: main(), retry_after: Some(pause) };
    storm.down(Some(busy));
    let (began, before) = (storm.began.elapsed(), storm.requests(Duration::ZERO, 100 * HOUR));
    while storm.requests(Duration::ZERO, 100 * HOUR) == before {
        storm.pass(Duration::from_secs(1)).await;
    }
    let told = storm.began.elapsed();
    storm.pass(pause - Duration::from_secs(1)).await;
    let meanwhile = storm.requests(told, storm.began.elapsed());
    assert_eq!(meanwhile, 0, "after the first one was told, all waited");
    storm.down(None);
    storm.pass(4 * HOUR).await;
    let most = storm.most_a_minute(began);
    assert!(most <= MOST_PER_MINUTE, "{most} in one minute");
    assert_eq!(storm.not_fresh("stale"), 0, "all are fresh again");
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_the_store_fail_no_read_and_are_told_once() {
    let storm = Storm::begin(4 * HOUR).await;
    storm.pass(2 * HOUR).await;
    storm.fixture.reports.take();
    storm.down(Some(sealed()));
    let began = storm.began.elapsed();
    for _ in 0..10 {
        storm.pass(MINUTE).await;
        storm.assert_readable();
    }
    let meanwhile = storm.requests(began, storm.began.elapsed());
    assert!(meanwhile < 100, "{meanwhile} requests to a store that is down");
    let stale = storm.not_fresh("stale");
    assert!((150..200).contains(&stale), "{stale} are stale: those that were due");
    storm.down(None);
    for _ in 0..20 {
        storm.pass(2 * MINUTE).await;
        storm.assert_readable();
    }
    assert_eq!(storm.not_fresh("stale"), 0);
    let told = storm.told();
    let of = |reason: &str| told.keys().filter(|it| it.ends_with(reason)).count() as u64;
    // Some more came while nobody knew yet that it was back.
    assert!((stale..stale + 20).contains(&of(" SecretsStale")), "{}", of(" SecretsStale"));
    assert_eq!(of(" SecretsFresh"), of(" SecretsStale"));
    assert!(told.values().all(|times| *times == 1), "one event each");
    storm.pass(2 * HOUR).await;
    let most = storm.most_a_minute(began);
    assert!(most <= MOST_PER_MINUTE, "{most} in one minute");
}

#[tokio::test(start_paused = true)]
async fn past_max_stale_all_are_closed_and_heal_by_themselves() {
    let storm = Storm::begin(2 * HOUR).await;
    storm.pass(2 * HOUR).await;
    storm.fixture.reports.take();
    storm.down(Some(sealed()));
    storm.pass(2 * HOUR + MINUTE).await;
    assert_eq!(storm.not_fresh("closed"), VOLUMES as u64);
    for kernel in &storm.kernels {
        assert_eq!(kernel.read(FIRST_FILE), Err(EACCES));
    }
    let back = storm.began.elapsed();
    storm.down(None);
    storm.pass(2 * HOUR).await;
    for kernel in &storm.kernels {
        assert_eq!(kernel.read(file_of(2)).as_deref(), Ok("canary-password"));
    }
    assert_eq!((storm.not_fresh("closed"), storm.not_fresh("stale")), (0, 0));
    let told = storm.told();
    for reason in [" SecretsStale", " SecretsClosed", " SecretsFresh"] {
        assert_eq!(told.keys().filter(|it| it.ends_with(reason)).count(), VOLUMES, "{reason}");
    }
    assert!(told.values().all(|times| *times == 1), "one event each");
    let most = storm.most_a_minute(back);
    assert!(most <= MOST_PER_MINUTE, "{most} in one minute");
}
