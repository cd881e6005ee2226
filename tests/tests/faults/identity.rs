//! Tokens: refreshed, replayed, wrong; keys that change; an API server that is away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::{Value, json};
use sotto_dev::issuer::{Algorithm, PodTokenSpec};
use sotto_dev::kubelet::CsiDriver;
use sotto_dev::store::{DevStore, Operation, ROLE, Role};
use sotto_tests::cluster::Cluster;
use sotto_tests::files;
use sotto_tests::readers::Readers;
use sotto_tests::scene::{CSI_DRIVER, Scene};
use sotto_tests::served::{Served, value};
use sotto_tests::table::Outcome;
use sotto_tests::wait::until;
use tonic::Code;

const EVERY_SECOND: (&str, &str) = ("sotto.dev/refresh", "1s");

/// Store tokens that end after 2 s: each refresh that finds its own at its end logs in anew.
fn short_lived(store: &DevStore) {
    let short = Duration::from_secs(2);
    let role = Role { token_ttl: short, token_max_ttl: short, ..Role::of_namespace("payments") };
    store.put_role("jwt", ROLE, role);
}

/// How many different pod tokens the store was logged in with.
fn tokens_used(store: &DevStore) -> usize {
    let requests = store.requests();
    let logins = requests.into_iter().filter(|it| it.operation == Operation::Login);
    let used: std::collections::BTreeSet<_> = logins.filter_map(|it| it.pod_token).collect();
    used.len()
}

pub(crate) async fn token_is_refreshed() -> anyhow::Result<Outcome> {
    let scene = Scene::embedded().await?;
    short_lived(scene.store());
    let served = Served::start(scene, 1, &[EVERY_SECOND]).await?;
    let readers = served.readers(2)?;
    for fresh in 2..=4 {
        // As after 80 % of its life.
        served.scene.kubelet().mint_with(Arc::new(|token| token));
        served.scene.kubelet().sync(&served.pods[0]).await?;
        until("a login with it", || tokens_used(served.scene.store()) == fresh).await?;
    }
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting("3 fresh tokens"))
}

pub(crate) async fn tokens_move() -> anyhow::Result<Outcome> {
    let older = CSI_DRIVER.replace("serviceAccountTokenInSecrets: true", "");
    anyhow::ensure!(older != CSI_DRIVER, "the manifest has the field");
    let scene = Scene::embedded().await?;
    short_lived(scene.store());
    let served = Served::start(scene, 1, &[EVERY_SECOND]).await?;
    for (number, driver) in [older.as_str(), CSI_DRIVER, older.as_str()].iter().enumerate() {
        served.scene.kubelet().apply(CsiDriver::parse(driver)?);
        served.scene.kubelet().mint_with(Arc::new(|token| token));
        served.scene.kubelet().sync(&served.pods[0]).await?;
        let used = || tokens_used(served.scene.store()) == number + 2;
        until("a login with the moved token", used).await?;
    }
    for (number, driver) in [older.as_str(), CSI_DRIVER].iter().enumerate() {
        served.scene.kubelet().apply(CsiDriver::parse(driver)?);
        let pod = served.pod(number + 1, &[]);
        let target = served.scene.publish(&pod).await?;
        anyhow::ensure!(files::read(target.join("a")).await? == value(1));
        served.scene.stop(&pod).await?;
    }
    served.stop().await?;
    Ok(Outcome::held())
}

pub(crate) async fn api_server_is_away() -> anyhow::Result<Outcome> {
    let cluster = Cluster::start("p-1", |_| {}).await?;
    short_lived(cluster.scene.store());
    let mut pod = cluster.scene.pod("checkout-0", "checkout", "db");
    pod.volumes[0].attributes.insert(EVERY_SECOND.0.to_owned(), EVERY_SECOND.1.to_owned());
    let target = cluster.scene.publish(&pod).await?;
    let readers = Readers::start(2, vec![target.join("p")])?;
    cluster.server.go_dark().await;
    let logins = cluster.scene.store().count(Operation::Login);
    let again = || cluster.scene.store().count(Operation::Login) >= logins + 2;
    until("logins without an API server", again).await?;
    let other = cluster.scene.pod("checkout-1", "checkout", "db");
    cluster.scene.publish(&other).await.context("a pod of a known class")?;
    let stall = readers.seen().take_longest();
    let seen = readers.stop();
    anyhow::ensure!(seen.failures().is_empty(), "{:?}", seen.failures());
    cluster.scene.stop(&pod).await?;
    cluster.scene.stop(&other).await?;
    Ok(Outcome::read(stall).noting("until the token's own end"))
}

pub(crate) async fn signing_key_is_rotated() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    let (scene, pods) = (&served.scene, [1, 2, 3].map(|number| served.pod(number, &[])));
    // A token of the old key that kubelet goes on sending.
    drop(scene.kubelet().request(&pods[0], &pods[0].volumes[0]));
    scene.issuer().rotate(Algorithm::Es256)?;
    scene.issuer().write_jwks(&scene.node().path("etc/jwks.json"))?;
    for pod in &pods[..2] {
        let target = scene.publish(pod).await?;
        anyhow::ensure!(files::read(target.join("a")).await? == value(1), "{}", pod.name);
        scene.stop(pod).await?;
    }
    let unknown = |token: PodTokenSpec| token.header("kid", json!("nobody"));
    scene.kubelet().mint_with(Arc::new(unknown));
    let (code, message) = scene.refused(&pods[2]).await?;
    anyhow::ensure!(code == Code::Unauthenticated && message.contains("key"), "{message}");
    served.stop().await?;
    Ok(Outcome::held())
}

pub(crate) async fn token_of_a_deleted_pod_is_replayed() -> anyhow::Result<Outcome> {
    let edit = |config: &mut Value| config["tokens"]["review"] = json!(["main"]);
    let cluster = Cluster::start("p-1", edit).await?;
    let (scene, issuer) = (&cluster.scene, cluster.scene.issuer().clone());
    cluster.server.answer_token_reviews(move |asked| {
        let spec = json!({"token": asked.token, "audiences": asked.audiences});
        issuer.review(&json!({"spec": spec}))["status"].clone()
    });
    let pod = scene.pod("checkout-0", "checkout", "db");
    scene.publish(&pod).await.context("a pod that is there")?;
    scene.stop(&pod).await?;
    let deleted = scene.pod("checkout-1", "checkout", "db");
    scene.issuer().forget_pod(&deleted.uid);
    let logins = scene.store().count(Operation::Login);
    let (code, message) = scene.refused(&deleted).await?;
    anyhow::ensure!(code == Code::Unauthenticated, "{code:?} {message}");
    anyhow::ensure!(message.contains("the API server refuses the token"), "{message}");
    anyhow::ensure!(scene.store().count(Operation::Login) == logins, "the store was asked");
    Ok(Outcome::held().noting("with tokens.review"))
}

type Wrong = (&'static str, fn(PodTokenSpec) -> PodTokenSpec);

const OF_ANOTHER: &[Wrong] = &[
    ("aud", |token| token.claim("/aud", json!(["other"]))),
    ("node", |token| token.claim("/kubernetes.io/node/name", json!("another"))),
    ("pod-uid", |token| token.claim("/kubernetes.io/pod/uid", json!("another"))),
];

pub(crate) async fn token_is_of_another() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let scene = &served.scene;
    for (number, (what, wrong)) in OF_ANOTHER.iter().enumerate() {
        scene.kubelet().mint_with(Arc::new(*wrong));
        let pod = served.pod(number, &[]);
        let (code, message) = scene.refused(&pod).await?;
        let refused = [Code::Unauthenticated, Code::PermissionDenied].contains(&code);
        anyhow::ensure!(refused, "{what}: {code:?} {message}");
        let denied = |records: &[Value]| {
            records.iter().any(|record| {
                record["pod_uid"] == pod.uid.as_str() && record["decision"] == "denied"
            })
        };
        scene.node().audited(what, Duration::from_secs(10), denied).await?;
    }
    anyhow::ensure!(scene.store().requests().is_empty(), "the store was asked");
    Ok(Outcome::held())
}

pub(crate) async fn clock_is_skewed() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let at = |seconds: i64| {
        let now = SystemTime::now();
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - by } else { now + by }
    };
    for (number, (skew, is_taken)) in
        [(300, false), (-300, true), (5, true), (-900, false)].into_iter().enumerate()
    {
        served.scene.kubelet().mint_with(Arc::new(move |token| token.issued_at(at(skew))));
        let pod = served.pod(number, &[]);
        if is_taken {
            served.scene.publish(&pod).await.with_context(|| format!("{skew} s"))?;
            served.scene.stop(&pod).await?;
            continue;
        }
        let (code, message) = served.scene.refused(&pod).await?;
        let says = message.contains("not valid before") || message.contains("expired");
        anyhow::ensure!(code == Code::Unauthenticated && says, "{skew} s: {message}");
    }
    served.stop().await?;
    reviewer_is_skewed().await?;
    Ok(Outcome::held().noting("leeway 10 s; a TokenReview by a clock that is behind says so"))
}

/// The API server judges by its own clock.
async fn reviewer_is_skewed() -> anyhow::Result<()> {
    const EARLY: &str = "[invalid bearer token, token used before issued]";
    let edit = |config: &mut Value| config["tokens"]["review"] = json!(["main"]);
    let cluster = Cluster::start("p-1", edit).await?;
    cluster.server.answer_token_reviews(|_| json!({"authenticated": false, "error": EARLY}));
    let pod = cluster.scene.pod("checkout-0", "checkout", "db");
    let (code, message) = cluster.scene.refused(&pod).await?;
    anyhow::ensure!(code == Code::Unauthenticated, "{code:?} {message}");
    let says =
        message.contains("the API server refuses the token") && message.contains("before issued");
    anyhow::ensure!(says, "{message}");
    anyhow::ensure!(cluster.scene.store().count(Operation::Login) == 0, "the store was asked");
    let issuer = cluster.scene.issuer().clone();
    cluster.server.answer_token_reviews(move |asked| {
        let spec = json!({"token": asked.token, "audiences": asked.audiences});
        issuer.review(&json!({"spec": spec}))["status"].clone()
    });
    cluster.scene.publish(&pod).await.context("by a clock that is right")?;
    cluster.scene.stop(&pod).await
}
