//! A SecretProviderClass that is edited while pods have its volumes: they turn to what it says at their next refresh.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::store::{DevStore, Fault, Operation};
use sotto_tests::files::{mode_and_owner, read};
use sotto_tests::scene::Scene;
use sotto_tests::wait::until;

const PASSWORD: &str =
    "- {objectName: password, secretPath: secret/data/payments/checkout/db, secretKey: password}\n";
const USER: &str =
    "- {objectName: user, secretPath: secret/data/payments/checkout/db, secretKey: user}\n";

/// A pod that refreshes every second, with the objects.
async fn scene(objects: &str) -> anyhow::Result<(Scene<DevStore>, Pod, PathBuf)> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1", "user": "u-1"})).await?;
    scene.class("db", objects)?;
    let mut pod = scene.pod("checkout-0", "checkout", "db");
    pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let target = scene.publish(&pod).await?;
    Ok((scene, pod, target))
}

async fn turned_to(target: &Path, generation: &str) -> anyhow::Result<()> {
    let link = target.join("..data");
    until(generation, || std::fs::read_link(&link).is_ok_and(|it| it == Path::new(generation)))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_mode_alone_is_followed() -> anyhow::Result<()> {
    let (scene, pod, target) = scene(PASSWORD).await?;
    scene.class("db", &PASSWORD.replace("secretKey", "filePermission: 0600, secretKey"))?;
    turned_to(&target, "..2").await?;
    assert_eq!(mode_and_owner(target.join("password")).await?.0 & 0o777, 0o600);
    assert_eq!(scene.store().count(Operation::Login), 1, "the login is the same");
    scene.stop(&pod).await
}

/// Not at the next refresh, which is minutes away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_refresh_is_told_once_the_edit_is_followed() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"password": "p-1", "user": "u-1"})).await?;
    scene.class("db", PASSWORD)?;
    let pod = scene.pod("checkout-0", "checkout", "db");
    let target = scene.publish(&pod).await?;
    let edits =
        [format!("{PASSWORD}{USER}"), format!("{USER}{}", PASSWORD.replace(": password,", ": p,"))];
    for (edit, name) in edits.iter().zip(["user", "p"]) {
        scene.class("db", edit)?;
        let (is_good, lines) = scene.node().refresh(&pod).await?;
        assert!(is_good && lines[1].ends_with(" changed"), "{lines:?}");
        assert!(target.join(name).exists(), "it is there when that is said");
    }
    scene.class("db", &USER.replace("/db,", "/nowhere,"))?;
    let (is_good, lines) = scene.node().refresh(&pod).await?;
    assert!(!is_good && lines[1].ends_with(" unservable"), "{lines:?}");
    scene.store().fail(None, Fault::Sealed, None);
    scene.class("db", PASSWORD)?;
    let (is_good, lines) = scene.node().refresh(&pod).await?;
    assert!(!is_good && lines[1].ends_with(" outage"), "{lines:?}");
    assert_eq!(read(target.join("p")).await?, "p-1", "it goes on as it was");
    scene.store().heal();
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_come_and_go_are_followed_and_open_files_stay() -> anyhow::Result<()> {
    use std::io::Read;
    let (scene, pod, target) = scene(&format!("{PASSWORD}{USER}")).await?;
    let mut open = std::fs::File::open(target.join("user"))?;
    scene.class(
        "db",
        &format!("{PASSWORD}{}", USER.replace("objectName: user", "objectName: login/name")),
    )?;
    turned_to(&target, "..2").await?;
    assert_eq!(read(target.join("login/name")).await?, "u-1");
    assert_eq!(read(target.join("password")).await?, "p-1");
    let gone = target.join("user");
    until("the end of a name", || !gone.exists()).await?;
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    assert_eq!(text, "u-1");
    // It is refreshed as the class is now.
    scene.write("payments/checkout/db", json!({"password": "p-2", "user": "u-2"})).await?;
    turned_to(&target, "..3").await?;
    assert_eq!(read(target.join("login/name")).await?, "u-2");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_cannot_be_served_changes_nothing() -> anyhow::Result<()> {
    let (scene, pod, target) = scene(PASSWORD).await?;
    let log = scene.node().agent().log();
    let said = |text: &'static str| {
        move || log.read(|lines| lines.iter().any(|line| line.text.contains(text)))
    };
    scene.class("db", &format!("{PASSWORD}{}", USER.replace("/db,", "/other,")))?;
    until("the failed edit", said("what it says now can't be served")).await?;
    scene.write("payments/checkout/db", json!({"password": "p-2", "user": "u-1"})).await?;
    turned_to(&target, "..2").await?;
    assert_eq!(read(target.join("password")).await?, "p-2", "it goes on as it was");
    assert!(!target.join("user").exists());
    // Once it can be, it is.
    scene.write("payments/checkout/other", json!({"user": "u-9"})).await?;
    let user = target.join("user");
    until("the new object", || std::fs::read_to_string(&user).is_ok_and(|it| it == "u-9")).await?;
    scene.stop(&pod).await
}

/// One volume is told; the others are about to look at their class, and know it from the store's gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_waits_while_the_store_wants_to_be_left_alone() -> anyhow::Result<()> {
    let (scene, pod, target) = scene(PASSWORD).await?;
    let mut others = Vec::new();
    for name in ["checkout-1", "checkout-2", "checkout-3", "checkout-4"] {
        let mut pod = scene.pod(name, "checkout", "db");
        pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
        others.push((scene.publish(&pod).await?, pod));
    }
    let log = scene.node().agent().log();
    let waits = |text: &str| text.contains("refreshes of its volumes wait");
    let waits = || log.read(|lines| lines.iter().any(|line| waits(&line.text)));
    scene.store().fail(None, Fault::RateLimited(Some(4)), Some(1));
    until("the store's wish", waits).await?;
    let since = Instant::now();
    let role = scene.store().role("jwt", "payments").context("the role")?;
    scene.store().put_role("jwt", "other", role);
    scene.class_with("db", json!({"roleName": "other", "objects": PASSWORD}))?;
    let second = Path::new("..2");
    let targets: Vec<&PathBuf> = others.iter().map(|(target, _)| target).chain([&target]).collect();
    let turned =
        |target: &&&PathBuf| std::fs::read_link(target.join("..data")).is_ok_and(|it| it == second);
    until("the first that follows", || targets.iter().any(|it| turned(&it))).await?;
    assert!(since.elapsed() > Duration::from_secs(2), "the store was asked at once");
    until("the last that follows", || targets.iter().all(|it| turned(&it))).await?;
    for (_, other) in &others {
        scene.stop(other).await?;
    }
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_role_is_logged_in_with_and_the_old_login_revoked() -> anyhow::Result<()> {
    let (scene, pod, target) = scene(PASSWORD).await?;
    let role = scene.store().role("jwt", "payments").context("the role")?;
    scene.store().put_role("jwt", "other", role);
    scene.class_with("db", json!({"roleName": "other", "objects": PASSWORD}))?;
    turned_to(&target, "..2").await?;
    assert_eq!(scene.store().count(Operation::Login), 2);
    until("the end of the old login", || scene.store().tokens() == 1).await?;
    // A worker that is replaced goes on with the class as it is now.
    scene.node().kill_worker()?;
    assert_eq!(read(target.join("password")).await?, "p-1");
    scene.stop(&pod).await?;
    until("the end of the other", || scene.store().tokens() == 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_whose_login_is_good_for_nothing_leaves_no_login_behind() -> anyhow::Result<()> {
    let (scene, pod, target) = scene(PASSWORD).await?;
    let role = scene.store().role("jwt", "payments").context("the role")?;
    scene.store().put_role("jwt", "other", role);
    let missing = PASSWORD.replace("/db,", "/none,");
    scene.class_with("db", json!({"roleName": "other", "objects": missing}))?;
    // The first login, and those of two tries.
    until("two tries", || scene.store().count(Operation::Login) >= 3).await?;
    until("the end of their logins", || scene.store().tokens() == 1).await?;
    assert_eq!(read(target.join("password")).await?, "p-1");
    scene.stop(&pod).await?;
    until("the end of all", || scene.store().tokens() == 0).await
}
