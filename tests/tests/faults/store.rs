//! The store is down, slow, sealed, over its limit; it withdraws what it gave.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use sotto_dev::bao::{Bao, jwt_role};
use sotto_dev::kubelet::CallKind;
use sotto_dev::postgres::Postgres;
use sotto_dev::store::{Fault, Operation};
use sotto_dev::test_store::TestStore;
use sotto_tests::files::blocking;
use sotto_tests::metrics;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::{NAMES, SECRET, Served, value};
use sotto_tests::table::{Milliseconds, Outcome};
use sotto_tests::wait::until;

const EVERY_SECOND: (&str, &str) = ("sotto.dev/refresh", "1s");
const PATIENCE: Duration = Duration::from_secs(40);

/// Reads until the result is as wanted; returns how long that took.
pub(crate) async fn read_until(
    path: &Path,
    wanted: impl Fn(&std::io::Result<String>) -> bool,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let seen = async {
        loop {
            let at = path.to_owned();
            let read = blocking(move || Ok(std::fs::read_to_string(at))).await?;
            if wanted(&read) {
                return anyhow::Ok(begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.context("it was never read so")?
}

fn is(kind: ErrorKind) -> impl Fn(&std::io::Result<String>) -> bool {
    move |read| read.as_ref().is_err_and(|error| error.kind() == kind)
}

pub(crate) async fn is_down_at_a_pods_start() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::openbao().await?, 0, &[]).await?;
    served.scene.store().process().signal(rustix::process::Signal::STOP);
    let pod = served.pod(0, &[]);
    let kubelet = std::sync::Arc::clone(served.scene.node().kubelet());
    let waits = {
        let pod = pod.clone();
        tokio::spawn(async move { kubelet.start(&pod, Duration::from_secs(60)).await })
    };
    let failed = |calls: &[sotto_dev::kubelet::Call]| {
        calls.iter().any(|call| call.kind == CallKind::Publish && call.code != tonic::Code::Ok)
    };
    let calls = tokio::time::timeout(PATIENCE, served.scene.kubelet().until_calls(failed)).await;
    let code = calls.context("no publish has failed")?[0].code;
    anyhow::ensure!(
        [tonic::Code::Unavailable, tonic::Code::DeadlineExceeded].contains(&code),
        "{code:?}"
    );
    served.scene.store().process().signal(rustix::process::Signal::CONT);
    let target = waits.await?.context("it doesn't start")?.remove(0);
    anyhow::ensure!(std::fs::read_to_string(target.join("a"))? == value(1));
    served.pods.push(pod);
    served.stop().await?;
    Ok(Outcome::held().noting(format!("kubelet hears {code:?}, then OK")))
}

pub(crate) async fn is_down_for_long() -> anyhow::Result<Outcome> {
    let attributes = [EVERY_SECOND, ("sotto.dev/max-stale", "4s")];
    let served = Served::start(Scene::embedded().await?, 1, &attributes).await?;
    let file = served.targets[0].join(NAMES[0]);
    served.scene.store().go_dark();
    let status = served.targets[0].join("..sotto/status.json");
    read_until(&status, |read| read.as_ref().is_ok_and(|it| it.contains("\"stale\""))).await?;
    anyhow::ensure!(std::fs::read_to_string(&file)? == value(1), "not the last good value");
    let closed = read_until(&file, is(ErrorKind::PermissionDenied)).await?;
    served.scene.store().come_back().await?;
    read_until(&file, |read| read.as_ref().is_ok_and(|it| *it == value(1))).await?;
    served.stop().await?;
    Ok(Outcome::held()
        .noting(format!("max-stale 4 s: closed {} later, then healed", Milliseconds(closed))))
}

pub(crate) async fn is_slow() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 3, &[EVERY_SECOND]).await?;
    let readers = served.readers(4)?;
    let asked = served.scene.store().requests().len();
    served.scene.store().fail(None, Fault::Slow(Duration::from_secs(30)), None);
    readers.seen().take_longest();
    until("slow requests", || served.scene.store().requests().len() > asked + 2).await.ok();
    readers.read_on(2_000).await?;
    let outcome = served.judged(readers)?;
    let stall = outcome.stall.unwrap_or_default();
    anyhow::ensure!(stall < Duration::from_secs(1), "a read waited {stall:?}");
    served.scene.store().heal();
    served.stop().await?;
    Ok(outcome)
}

pub(crate) async fn limits_its_rate() -> anyhow::Result<Outcome> {
    const VOLUMES: usize = 20;
    let mut served = Served::start(Scene::embedded().await?, VOLUMES, &[EVERY_SECOND]).await?;
    let store = served.scene.store();
    let asked = || store.requests().len();
    store.fail(None, Fault::RateLimited(Some(4)), None);
    let limited = || store.requests().iter().any(|request| request.status == 429);
    until("a 429", limited).await?;
    // What was on its way when the first one came.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = asked();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let within = asked() - before;
    anyhow::ensure!(within <= 2, "{within} requests within Retry-After");
    store.heal();
    let before = asked();
    let begun = Instant::now();
    let next = served.write().await?;
    served.all_show(&next).await?;
    let store = served.scene.store();
    let rate = (store.requests().len() - before) as f64 / begun.elapsed().as_secs_f64();
    anyhow::ensure!(rate <= 3.0 * VOLUMES as f64, "a herd: {rate:.0} requests a second");
    store.fail(None, Fault::Status(503), None);
    until("a 503", || store.requests().iter().any(|it| it.status == 503)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = store.requests().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let within = store.requests().len() - before;
    anyhow::ensure!(within <= VOLUMES / 2, "{within} requests in 3 s of 503");
    store.heal();
    served.stop().await?;
    Ok(Outcome::held().noting(format!("{rate:.0} requests/s of {VOLUMES} volumes afterwards")))
}

pub(crate) async fn is_sealed_or_fails_over() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 2, &[EVERY_SECOND]).await?;
    let (agent, readers) = (served.scene.node().agent().pid(), served.readers(2)?);
    let worker = served.scene.node().worker();
    for fault in [Fault::Sealed, Fault::NoLeader, Fault::Upgrading, Fault::Disconnect] {
        let (store, asked) = (served.scene.store(), served.scene.store().requests().len());
        store.fail(None, fault, None);
        until("a request that fails", || store.requests().len() > asked).await?;
        store.heal();
        let next = served.write().await?;
        served.all_show(&next).await?;
    }
    let node = served.scene.node();
    anyhow::ensure!(node.agent().pid() == agent && node.worker() == worker, "it was restarted");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome)
}

pub(crate) async fn withdraws_a_policy() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::openbao().await?, 1, &[EVERY_SECOND]).await?;
    let file = served.targets[0].join(NAMES[0]);
    let open = std::fs::File::open(&file)?;
    served.scene.store().remove_policy("pod").await?;
    let took = read_until(&file, is(ErrorKind::PermissionDenied)).await?;
    // Refused first, invalidated a moment later.
    let kept = || std::os::unix::fs::FileExt::read_at(&open, &mut [0; 8], 0).is_err();
    until("the refusal of an open file", kept).await?;
    served.scene.store().restore_policy().await?;
    read_until(&file, |read| read.as_ref().is_ok_and(|it| *it == value(1))).await?;
    served.stop().await?;
    Ok(Outcome::held().noting(format!("EACCES after {}, interval 1 s", Milliseconds(took))))
}

pub(crate) async fn deletes_a_secret() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::openbao().await?, 1, &[EVERY_SECOND]).await?;
    let optional = served.pod(1, &[EVERY_SECOND, ("sotto.dev/optional", "true")]);
    served.targets.push(served.scene.publish(&optional).await?);
    served.pods.push(optional);
    served.scene.store().delete(SECRET, &[1]).await?;
    let denied = is(ErrorKind::PermissionDenied);
    let took = read_until(&served.targets[0].join("a"), denied).await?;
    read_until(&served.targets[1].join("a"), is(ErrorKind::NotFound)).await?;
    served.stop().await?;
    Ok(Outcome::held()
        .noting(format!("EACCES after {}, interval 1 s; optional: ENOENT", Milliseconds(took))))
}

/// Leases that no renewal prolongs, as they are at their maximum or as it is refused.
pub(crate) async fn renews_no_lease() -> anyhow::Result<Outcome> {
    let at_most = is_fetched_anew(("6s", "6s"), jwt_role()).await?.0;
    // A token without the policy that lets it renew.
    let mut refused = jwt_role();
    refused["token_no_default_policy"] = true.into();
    let (asked, failed) = is_fetched_anew(("6s", "60s"), refused).await?;
    anyhow::ensure!(failed > 0, "no metric tells of a renewal that failed");
    Ok(Outcome::held().noting(format!(
        "{} connects over 3 leases of 6 s each way, none refused; {failed} failed renewals counted",
        at_most + asked
    )))
}

/// New credentials come before the old ones end. Returns how often they were used, and renewals that failed.
async fn is_fetched_anew(
    ttl: (&str, &str),
    login: serde_json::Value,
) -> anyhow::Result<(usize, usize)> {
    let scrape = metrics::free_address()?;
    let settings = StoreSettings::edited(move |config| {
        config["metrics"]["address"] = scrape.to_string().into();
    });
    let scene: Scene<Bao> = Scene::openbao_with(settings).await?;
    let postgres = Postgres::start().await?;
    scene.store().enable_database(&postgres, ttl, login).await?;
    scene.class(
        "database",
        "- {objectName: username, secretPath: database/creds/payments, secretKey: username}\n\
         - {objectName: password, secretPath: database/creds/payments, secretKey: password}",
    )?;
    let pod = scene.pod("checkout-0", "checkout", "database");
    let target = scene.publish(&pod).await?;
    let (mut users, mut asked) = (std::collections::BTreeSet::new(), 0);
    let begun = Instant::now();
    while users.len() < 3 {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "never fetched anew: {users:?}");
        let at = target.clone();
        let (user, password) = blocking(move || {
            let generation = at.join(std::fs::read_link(at.join("..data"))?);
            let read = |name| std::fs::read_to_string(generation.join(name));
            Ok((read("username")?, read("password")?))
        })
        .await?;
        let said = postgres.ask(&user, &password, "SELECT current_user").await;
        anyhow::ensure!(said.context("credentials that have ended")? == user);
        users.insert(user);
        asked += 1;
    }
    let text = metrics::scrape(scrape).await?;
    let line = "sotto_lease_renewals_total{store=\"main\",result=\"failed\"} ";
    let failed = text.lines().find_map(|it| it.strip_prefix(line)?.parse().ok());
    scene.stop(&pod).await?;
    Ok((asked, failed.unwrap_or_default()))
}

pub(crate) async fn is_asked_by_many_pods_at_once() -> anyhow::Result<Outcome> {
    const PODS: usize = 250;
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let pods: Vec<_> = (0..PODS).map(|number| served.pod(number, &[])).collect();
    let begun = Instant::now();
    let starts = pods.iter().map(|pod| async {
        let begun = Instant::now();
        let started = served.scene.kubelet().start(pod, Duration::from_secs(60)).await;
        started.map(|_| begun.elapsed())
    });
    let mut took =
        futures::future::join_all(starts).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let all = begun.elapsed();
    took.sort();
    let store = served.scene.store();
    let (logins, reads) = (store.count(Operation::Login), store.count(Operation::Read));
    anyhow::ensure!(logins <= PODS && reads <= 2 * PODS, "{logins} logins, {reads} reads");
    for pod in &pods {
        served.scene.stop(pod).await?;
    }
    let p99 = Milliseconds(took[PODS * 99 / 100]);
    Ok(Outcome::held().noting(format!(
        "p99 {p99} of {PODS} in {} (development build, 2 cores); {logins} logins, {reads} reads",
        Milliseconds(all)
    )))
}
