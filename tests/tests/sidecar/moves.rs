//! A store that is moved while a pod is served: its sidecar goes over to the new one, and leaves nothing at the old one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::json;
use sotto_dev::bao::Bao;
use sotto_dev::node::Injected;
use sotto_dev::pki::Authority;
use sotto_dev::test_store::{StoreAccess, TestStore};
use sotto_tests::files::read;
use sotto_tests::readers::Readers;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::sidecars::{self, PATIENCE, no_tokens_are_left, pod_tokens, scene, shows};
use sotto_tests::wait::until;

const REFRESH: [(&str, &str); 1] = [("sotto.dev/refresh", "1s")];
const DB: &str = "payments/checkout/db";

/// Another server, with a CA of its own, for the same pods.
async fn another(scene: &Scene<Bao>) -> anyhow::Result<Bao> {
    let authority = Authority::new("another store's CA")?;
    Ok(Bao::start_for(&authority, scene.authority(), scene.issuer()).await?)
}

fn files(secrets: &Path) -> Vec<PathBuf> {
    ["password", "tls/user", "..data/password"].map(|name| secrets.join(name)).to_vec()
}

fn said(pod: &Injected, words: &str) -> bool {
    pod.output().contains(words)
}

async fn has_a_login(bao: &Bao) -> anyhow::Result<()> {
    let login = async {
        while pod_tokens(bao).await?.is_empty() {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, login).await.context("no pod logs in at the new store")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_store_is_followed_without_a_failed_read_and_the_old_login_is_revoked_where_it_was_made()
-> anyhow::Result<()> {
    let mut scene = scene().await?;
    let new = another(&scene).await?;
    new.write(DB, json!({"password": "p-new", "user": "u-1"})).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    let worker = pod.worker();
    let old_login = pod_tokens(scene.store()).await?.pop().context("its login")?;
    let readers = Readers::start(4, files(&secrets))?;
    readers.read_on(100).await?;
    scene.move_store_to(new.access()).await?;
    shows(&secrets.join("password"), "p-new").await?;
    no_tokens_are_left(scene.store()).await?;
    let body = Some(json!({"accessor": old_login}));
    let looked_up = scene.store().admin(Method::POST, "auth/token/lookup-accessor", body).await;
    assert!(looked_up.is_err(), "the old login is good for something at the old store");
    assert_eq!(pod_tokens(&new).await?.len(), 1);
    readers.read_on(100).await?;
    let seen = readers.stop();
    assert_eq!(seen.failures(), Vec::<String>::new(), "{}", scene.last_lines_of(&pod));
    assert_eq!(seen.values().into_iter().collect::<Vec<_>>(), ["p-1", "p-new", "u-1"]);
    assert_eq!(pod.worker(), worker, "it took no other process");
    // It follows the new one, and nothing of it is left there either.
    new.write(DB, json!({"password": "p-newer", "user": "u-1"})).await?;
    shows(&secrets.join("password"), "p-newer").await?;
    pod.end(scene.node()).await?;
    no_tokens_are_left(&new).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_moved_to_takes_nothing_away_and_is_gone_over_to_once_it_can()
-> anyhow::Result<()> {
    let mut scene = scene().await?;
    // It lacks the secret: the login there comes to nothing.
    let new = another(&scene).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    scene.move_store_to(new.access()).await?;
    let failed = "the store's settings have changed, and what it says now can't be served";
    until("the failed move", || said(&pod, failed)).await?;
    no_tokens_are_left(&new).await?;
    assert_eq!(pod_tokens(scene.store()).await?.len(), 1, "the old login is good still");
    sidecars::write(&scene, "p-2").await?;
    shows(&secrets.join("password"), "p-2").await?;
    new.write(DB, json!({"password": "p-new", "user": "u-1"})).await?;
    shows(&secrets.join("password"), "p-new").await?;
    no_tokens_are_left(scene.store()).await?;
    pod.end(scene.node()).await?;
    no_tokens_are_left(&new).await
}

/// The same address by another CA: the former one may be in a stranger's hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_ca_is_replaced_has_the_old_login_revoked_by_the_new_ca() -> anyhow::Result<()>
{
    let mut scene = Scene::embedded_with(StoreSettings::sidecars()).await?;
    sidecars::prepare(&scene).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    let next = Authority::new("the next authority")?;
    let clients = scene.authority().certificate_pem().to_owned();
    scene.store_mut().show(&next.server("sotto-dev store")?, &clients).await?;
    let ca = scene.node().path("etc/next-ca.pem");
    std::fs::write(&ca, next.certificate_pem())?;
    let access = StoreAccess { ca, ..scene.store().access().clone() };
    scene.move_store_to(&access).await?;
    sidecars::write(&scene, "p-2").await?;
    shows(&secrets.join("password"), "p-2").await?;
    until("the old login's end", || scene.store().tokens() == 1).await?;
    assert!(!said(&pod, "a store token was not revoked"), "{}", pod.output());
    pod.end(scene.node()).await?;
    until("the last login's end", || scene.store().tokens() == 0).await
}

/// The old server is gone: that its token can't be revoked is said, and delays nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_store_that_does_not_answer_is_left_all_the_same() -> anyhow::Result<()> {
    let mut scene = scene().await?;
    let new = another(&scene).await?;
    new.write(DB, json!({"password": "p-new", "user": "u-1"})).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &REFRESH).await?;
    scene.store().process().kill().await?;
    scene.move_store_to(new.access()).await?;
    shows(&secrets.join("password"), "p-new").await?;
    until("what was not revoked", || said(&pod, "a store token was not revoked")).await?;
    assert_eq!(read(secrets.join("password")).await?, "p-new");
    pod.end(scene.node()).await?;
    no_tokens_are_left(&new).await
}

/// When a pod is told to end.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the administrator's change.
    After(Duration),
    /// It has a login at the new store.
    LoggedIn,
    /// It says that it turns.
    Turning,
    /// It shows the new values.
    Shown,
}

const MOMENTS: [Moment; 7] = [
    Moment::After(Duration::ZERO),
    Moment::After(Duration::from_millis(300)),
    Moment::After(Duration::from_millis(700)),
    Moment::After(Duration::from_millis(1_100)),
    Moment::LoggedIn,
    Moment::Turning,
    Moment::Shown,
];

impl Moment {
    async fn has_come(self, pod: &Injected, secrets: &Path, new: &Bao) -> anyhow::Result<()> {
        match self {
            Self::After(pause) => tokio::time::sleep(pause).await,
            Self::LoggedIn => has_a_login(new).await?,
            Self::Turning => {
                until("the turn", || said(pod, "the store's settings have changed")).await?;
            }
            Self::Shown => {
                let file = secrets.join("password");
                let is_new = || std::fs::read(&file).is_ok_and(|it| it == b"p-new");
                until("the new value", is_new).await?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_told_to_end_while_its_store_is_moved_leaves_no_token_at_either()
-> anyhow::Result<()> {
    let mut scene = scene().await?;
    let new = another(&scene).await?;
    new.write(DB, json!({"password": "p-new", "user": "u-1"})).await?;
    let old = scene.store().access().clone();
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let (mut pod, secrets) = scene.delivered(&format!("checkout-{number}"), &REFRESH).await?;
        scene.move_store_to(new.access()).await?;
        moment.has_come(&pod, &secrets, &new).await?;
        pod.end_application(scene.node())?;
        let (status, took) = pod.end_sidecar(scene.node()).await?;
        assert!(status.success(), "{moment:?}: {status}{}", scene.last_lines_of(&pod));
        assert!(took < Duration::from_secs(10), "{moment:?}: {took:?}");
        let left = (pod_tokens(scene.store()).await?, pod_tokens(&new).await?);
        assert_eq!(left, (vec![], vec![]), "{moment:?}{}", scene.last_lines_of(&pod));
        pod.end(scene.node()).await?;
        scene.move_store_to(&old).await?;
    }
    Ok(())
}

/// SIGTERM that comes when the worker has just been killed: its supervisor starts another one to give up what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_whose_worker_dies_when_it_is_told_to_end_leaves_no_token() -> anyhow::Result<()>
{
    let scene = scene().await?;
    for number in 0..5 {
        let (mut pod, _) = scene.delivered(&format!("checkout-{number}"), &[]).await?;
        assert_eq!(pod_tokens(scene.store()).await?.len(), 1);
        // Young workers are replaced after a pause of 50 ms: the signal comes into it.
        pod.kill_worker()?;
        // A volume whose restoring ends a worker is given up: the next one has come further.
        let links = || pod.output().matches("linked to the driver").count();
        until("another worker's link", || links() == 2).await?;
        pod.kill_worker()?;
        pod.end_application(scene.node())?;
        let (status, _) = pod.end_sidecar(scene.node()).await?;
        assert!(status.success(), "{status}{}", scene.last_lines_of(&pod));
        let left = pod_tokens(scene.store()).await?;
        assert_eq!(left, Vec::<String>::new(), "{}", scene.last_lines_of(&pod));
        pod.end(scene.node()).await?;
    }
    Ok(())
}

/// The worker is killed at many moments of a move: the next one goes on with the login and the store that belong
/// together, and the old login is revoked at the old store, whichever of them began it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_while_its_store_is_moved_is_followed_by_one_that_completes_the_move()
-> anyhow::Result<()> {
    let mut scene = scene().await?;
    let new = another(&scene).await?;
    new.write(DB, json!({"password": "p-new", "user": "u-1"})).await?;
    let old = scene.store().access().clone();
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let (mut pod, secrets) = scene.delivered(&format!("checkout-{number}"), &REFRESH).await?;
        let readers = Readers::start(2, files(&secrets))?;
        readers.read_on(20).await?;
        scene.move_store_to(new.access()).await?;
        moment.has_come(&pod, &secrets, &new).await?;
        let killed = pod.kill_worker()?;
        until("another worker", || pod.worker().is_some_and(|worker| worker != killed)).await?;
        shows(&secrets.join("password"), "p-new").await?;
        no_tokens_are_left(scene.store()).await.with_context(|| format!("{moment:?}"))?;
        let seen = readers.stop();
        assert_eq!(seen.failures(), Vec::<String>::new(), "{moment:?}");
        pod.end(scene.node()).await?;
        // One that was made and not yet left to the next worker lives to its own end; the others are revoked.
        assert!(pod_tokens(&new).await?.len() <= 1, "{moment:?}");
        new.revoke_tokens().await?;
        scene.move_store_to(&old).await?;
    }
    Ok(())
}
