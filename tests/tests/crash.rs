//! The agent's worker killed while applications read: its supervisor starts another one, which serves on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use sotto_dev::bao::{Bao, jwt_role};
use sotto_dev::postgres::Postgres;
use sotto_dev::process::Line;
use sotto_dev::store::{DevStore, Operation};
use sotto_dev::test_store::TestStore;
use sotto_tests::files::{blocking, read};
use sotto_tests::memory::secret_files;
use sotto_tests::procfs;
use sotto_tests::readers::Readers;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::Served;
use sotto_tests::wait::until;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const OBJECTS: &str = "\
    - {objectName: password, secretPath: secret/data/payments/checkout/db, secretKey: password}\n\
    - {objectName: tls/user, secretPath: secret/data/payments/checkout/db, secretKey: user}";

async fn scene() -> anyhow::Result<Scene<DevStore>> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1", "user": "u-1"})).await?;
    scene.class("db", OBJECTS)?;
    Ok(scene)
}

/// Kills the worker and waits until another one says that it serves on; returns how many volumes it does.
async fn kill<S>(scene: &Scene<S>) -> anyhow::Result<u64>
where
    S: TestStore,
{
    let restored = |line: &str| line.contains("an earlier worker served are served on");
    let log = scene.node().agent().log();
    let before = log.read(|lines| lines.iter().filter(|line| restored(&line.text)).count());
    let killed = scene.node().kill_worker()?;
    let said =
        || log.read(|lines| lines.iter().filter(|line| restored(&line.text)).count()) > before;
    until("another worker", said).await?;
    anyhow::ensure!(scene.node().worker() != Some(killed), "the same worker");
    let line =
        log.read(|lines| lines.iter().rfind(|line| restored(&line.text)).unwrap().text.clone());
    let line: Value = serde_json::from_str(&line)?;
    line["fields"]["restored"].as_u64().or(line["restored"].as_u64()).context("no number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_notice_nothing_though_the_store_is_down() -> anyhow::Result<()> {
    let scene = scene().await?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    let files =
        vec![target.join("password"), target.join("tls/user"), target.join("..data/password")];
    let inode = std::fs::metadata(&files[0])?.ino();
    let readers = Readers::start(4, files.clone())?;
    readers.read_on(100).await?;
    scene.store().go_dark();
    let asked = scene.store().requests().len();
    for _ in 0..3 {
        assert_eq!(kill(&scene).await?, 1);
        readers.read_on(100).await?;
    }
    assert_eq!(std::fs::metadata(&files[0])?.ino(), inode);
    assert_eq!(scene.store().requests().len(), asked, "nobody asked the store");
    let seen = readers.stop();
    assert_eq!(seen.failures(), Vec::<String>::new());
    assert_eq!(seen.values().into_iter().collect::<Vec<_>>(), ["p-1", "u-1"]);
    scene.store().come_back().await?;
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_worker_goes_on_with_the_login_and_refreshes() -> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let target = scene.publish(&pod).await?;
    let logins = scene.store().count(Operation::Login);
    kill(&scene).await?;
    scene.write("payments/checkout/db", json!({"password": "p-2", "user": "u-2"})).await?;
    let file = target.join("password");
    until("the new value", || std::fs::read_to_string(&file).is_ok_and(|it| it == "p-2")).await?;
    assert_eq!(scene.store().count(Operation::Login), logins, "the login was carried over");
    assert_eq!(std::fs::read_link(target.join("..data"))?, std::path::Path::new("..2"));
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_prepares_nothing_that_the_next_worker_was_left() -> anyhow::Result<()> {
    let served = Served::start(Scene::embedded().await?, 3, &[]).await?;
    let (csi, store) = (served.scene.node().csi().log(), served.scene.store());
    let said = |words: &str| {
        csi.read(|lines| lines.iter().filter(|line| line.text.contains(words)).count())
    };
    let asked = store.requests().len();
    for kills in 1..=3 {
        kill(&served.scene).await?;
        until("each volume's new link", || said("\"message\":\"served on\"") == kills * 3).await?;
        served.all_served().await?;
    }
    assert_eq!(said("\"message\":\"taken over\""), 0);
    let audit = served.scene.node().audit();
    let verified = audit.iter().filter(|record| record["action"] == "verify-token").count();
    assert_eq!(verified, 3, "once for each publish");
    assert_eq!(store.requests().len(), asked);
    served.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_without_end_are_never_taken_for_nobody() -> anyhow::Result<()> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let mut settings = StoreSettings::method("jwt");
    settings.csi_arguments = vec![format!("--request-deadline={}s", DEADLINE.as_secs())];
    let served = Served::start(Scene::embedded_with(settings).await?, 3, &[]).await?;
    let readers = served.readers(4)?;
    let (begun, mut kills, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let csi = served.scene.node().csi().log();
    let linked = || {
        let said = |line: &&Line| line.text.contains("\"message\":\"sotto-node is connected\"");
        csi.read(|lines| lines.iter().filter(said).count())
    };
    // As long as nobody but a killed one ever held the link.
    while begun.elapsed() < 4 * DEADLINE {
        readers.read_on(50).await?;
        until("its link", || linked() > kills).await?;
        longest = longest.max(readers.seen().take_longest());
        // Between two workers there is none.
        if served.scene.node().kill_worker().is_ok() {
            kills += 1;
        }
    }
    readers.read_on(50).await?;
    assert!(kills > 20, "only {kills}");
    assert!(longest < DEADLINE, "a read took {longest:?}");
    served.judged(readers)?;
    served.all_served().await?;
    served.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_the_configuration_no_longer_allows_is_let_go_and_the_agent_lives()
-> anyhow::Result<()> {
    let scene = scene().await?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    let config = scene.node().path("etc/config.yaml");
    let allowed = std::fs::read_to_string(&config)?;
    let others = allowed.replace("- payments", "- others");
    assert_ne!(allowed, others, "{allowed}");
    std::fs::write(&config, others)?;
    // One worker serves it and finds that it may not; the next one is not left it.
    assert_eq!(kill(&scene).await?, 0);
    let csi = scene.node().csi().log();
    let refused = || csi.text().contains("nobody serves the volume yet");
    until("the refusal to take it over", refused).await?;
    std::fs::write(&config, allowed)?;
    kill(&scene).await?;
    assert_eq!(read(target.join("password")).await?, "p-1");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_outlives_the_worker() -> anyhow::Result<()> {
    let scene = scene().await?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let target = scene.publish(&pod).await?;
    scene.store().remove_policy("pod").await?;
    let file = target.join("password");
    let denied = |path: &std::path::Path| {
        std::fs::read(path).is_err_and(|error| error.raw_os_error() == Some(13))
    };
    until("the refusal", || denied(&file)).await?;
    scene.store().go_dark();
    kill(&scene).await?;
    assert!(denied(&file), "a worker's end gives nothing back");
    scene.store().come_back().await?;
    scene.stop(&pod).await
}

/// A refresh that finds nothing new leaves no values, but when it was: neither does the next worker take them for older
/// than they are, nor for younger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_old_the_values_are_outlives_the_worker() -> anyhow::Result<()> {
    const MAX_STALE: Duration = Duration::from_secs(8);
    const REFRESHES: usize = 10;
    let scene = scene().await?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    attributes.insert("sotto.dev/max-stale".to_owned(), format!("{}s", MAX_STALE.as_secs()));
    let target = scene.publish(&pod).await?;
    let (file, status) = (target.join("password"), target.join("..sotto/status.json"));
    let supervisor = scene.node().agent().pid();
    let reads = || scene.store().count(Operation::Read);
    let first = reads();
    until("a refresh", || reads() > first).await?;
    let deposits = secret_files(supervisor)?;
    // Longer than values may be old.
    until("refreshes", || reads() > first + REFRESHES).await?;
    assert_eq!(secret_files(supervisor)?, deposits, "values were left though nothing had changed");
    scene.store().go_dark();
    kill(&scene).await?;
    // It has asked in vain, and would have closed them before that.
    let stale = || std::fs::read_to_string(&status).is_ok_and(|it| it.contains("\"stale\""));
    until("an attempt", stale).await?;
    assert_eq!(read(file.clone()).await?, "p-1", "they are younger than when they were left");
    // Workers that took them for fresh would never close them.
    let closed = || std::fs::read(&file).is_err_and(|error| error.raw_os_error() == Some(13));
    let begun = Instant::now();
    while timeout(Duration::from_secs(1), until("their end", closed)).await.is_err() {
        anyhow::ensure!(begun.elapsed() < 2 * MAX_STALE, "they don't get older");
        kill(&scene).await?;
    }
    scene.store().come_back().await?;
    until("their return", || std::fs::read(&file).is_ok()).await?;
    // The same of a worker that took the volume up.
    let first = reads();
    until("a refresh", || reads() > first).await?;
    let deposits = secret_files(supervisor)?;
    until("refreshes", || reads() > first + 3).await?;
    assert_eq!(secret_files(supervisor)?, deposits);
    scene.write("payments/checkout/db", json!({"password": "p-2", "user": "u-2"})).await?;
    until("the new value", || std::fs::read(&file).is_ok_and(|it| it == b"p-2")).await?;
    assert_ne!(secret_files(supervisor)?, deposits, "it would not be detected");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_ended_is_not_served_on() -> anyhow::Result<()> {
    let scene = scene().await?;
    let pods = ["checkout-0", "checkout-1"].map(|name| scene.pod(name, "checkout", "db"));
    for pod in &pods {
        scene.publish(pod).await?;
    }
    scene.stop(&pods[0]).await?;
    assert_eq!(kill(&scene).await?, 1);
    scene.stop(&pods[1]).await?;
    assert_eq!(kill(&scene).await?, 0);
    // A worker that is replaced while its pod goes is told of it when it is there.
    until("every login's end", || scene.store().tokens() == 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_revoked_with_their_pod_though_the_worker_was_killed_in_between()
-> anyhow::Result<()> {
    let scene: Scene<Bao> = Scene::openbao().await?;
    let postgres = Postgres::start().await?;
    scene.store().enable_database(&postgres, ("60s", "120s"), jwt_role()).await?;
    scene.class(
        "database",
        "- {objectName: username, secretPath: database/creds/payments, secretKey: username}\n\
         - {objectName: password, secretPath: database/creds/payments, secretKey: password}",
    )?;
    let pod = scene.pod("checkout-0", "checkout", "database");
    let target = scene.publish(&pod).await?;
    let user = read(target.join("username")).await?;
    kill(&scene).await?;
    assert_eq!(read(target.join("username")).await?, user, "no others were made");
    assert_eq!(postgres.roles().await?.len(), 1);
    scene.stop(&pod).await?;
    let gone = async {
        while !postgres.roles().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(5), gone).await.context("roles are left")??;
    Ok(())
}

/// The supervisor keeps fds and maps none of them: no value and no token is in its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_never_has_a_value_in_its_memory() -> anyhow::Result<()> {
    let scene = Scene::embedded_with(StoreSettings::edited(|_| {})).await?;
    let canary = "canary-7fd1c0de-value";
    scene.write("payments/checkout/db", json!({"password": canary, "user": "u"})).await?;
    scene.class("db", OBJECTS)?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    kill(&scene).await?;
    assert_eq!(read(target.join("password")).await?, canary);
    let supervisor = scene.node().agent().pid();
    let found = blocking(move || holds(supervisor, canary.as_bytes())).await?;
    assert!(!found, "the supervisor has the value");
    // The detector detects: this process has it.
    let own = std::process::id();
    assert!(blocking(move || holds(own, canary.as_bytes())).await?);
    scene.stop(&pod).await
}

/// Whether a process's memory has these bytes, as root sees it.
fn holds(pid: u32, wanted: &[u8]) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
        // What can't be read (vvar and the like) isn't ordinary memory.
        if memory.read_exact_at(&mut bytes, number(start)).is_ok()
            && bytes.windows(wanted.len()).any(|window| window == wanted)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_is_replaced_and_readers_only_wait() -> anyhow::Result<()> {
    let scene = scene().await?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    // It serves, so it has said that it lives.
    let worker = scene.node().worker().context("no worker")?;
    procfs::signal(worker, rustix::process::Signal::STOP)?;
    // One of its threads hears of it first: until then the others serve on.
    until("the worker's stop", || procfs::state(worker) == Some('T')).await?;
    let value = timeout(3 * SOON, read(target.join("password"))).await??;
    assert_eq!(value, "p-1");
    assert_ne!(scene.node().worker(), Some(worker));
    scene.stop(&pod).await
}
