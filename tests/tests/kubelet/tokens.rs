//! The pod's tokens: in `secrets` or in `volume_context`, refreshed at 80 % of their life, and used.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sotto_dev::issuer::token_id;
use sotto_dev::kubelet::{CsiDriver, HandClock, Pod, TokenPlace};
use sotto_dev::store::{DevStore, Operation, ROLE, Role};
use sotto_tests::scene::{CSI_DRIVER, Scene};
use sotto_tests::{files, wait};
use tonic::Code;

use super::scene;

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// The life that the CSIDriver of deploy/ asks for.
const LIFE: Duration = Duration::from_secs(600);

/// The CSIDriver of deploy/ for Kubernetes before 1.35, as the component there makes it.
fn before_1_35() -> anyhow::Result<CsiDriver> {
    let older = CSI_DRIVER.replace("serviceAccountTokenInSecrets: true", "");
    anyhow::ensure!(older != CSI_DRIVER, "the manifest has the field");
    Ok(CsiDriver::parse(&older)?)
}

/// The tokens that the next request carries, and where.
fn next_tokens(scene: &Scene<DevStore>, pod: &Pod) -> (TokenPlace, String) {
    let request = scene.kubelet().request(pod, &pod.volumes[0]);
    match (request.secrets.get(TOKENS), request.volume_context.get(TOKENS)) {
        (Some(tokens), None) => (TokenPlace::Secrets, tokens.clone()),
        (None, Some(tokens)) => (TokenPlace::VolumeContext, tokens.clone()),
        other => panic!("the tokens are at one place: {other:?}"),
    }
}

/// The `jti` of the token for the store that the next request carries.
fn next_token(scene: &Scene<DevStore>, pod: &Pod) -> String {
    let tokens: Value = serde_json::from_str(&next_tokens(scene, pod).1).expect("JSON");
    token_id(tokens["bao"]["token"].as_str().expect("a token for the store")).expect("a jti")
}

/// The `jti`s of the pod tokens that the store was logged in with, oldest first.
fn logins(scene: &Scene<DevStore>) -> Vec<String> {
    let requests = scene.store().requests();
    let logins = requests.into_iter().filter(|it| it.operation == Operation::Login);
    logins.filter_map(|login| login.pod_token).collect()
}

async fn until_login_with(scene: &Scene<DevStore>, token: &str) -> anyhow::Result<()> {
    let came = || logins(scene).last().is_some_and(|last| last == token);
    wait::until("a login with the fresh token", came).await
}

/// A pod whose values are refreshed every second, with store tokens that end after two: each refresh that
/// finds its token at its end logs in anew, with the pod's token that the agent holds then.
async fn scene_that_logs_in_again() -> anyhow::Result<(Scene<DevStore>, Pod)> {
    let (scene, mut pod) = scene().await?;
    let short = Duration::from_secs(2);
    let role = Role { token_ttl: short, token_max_ttl: short, ..Role::of_namespace("payments") };
    scene.store().put_role("jwt", ROLE, role);
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    Ok((scene, pod))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_refreshed_at_four_fifths_of_its_life_and_the_next_login_is_made_with_it()
-> anyhow::Result<()> {
    let (scene, pod) = scene_that_logs_in_again().await?;
    let now = SystemTime::now();
    let start = now - LIFE * 8 / 10 - Duration::from_secs(5);
    let clock = Arc::new(HandClock::at(start));
    scene.kubelet().use_clock(clock.clone());
    let target = scene.publish(&pod).await?;
    let first = next_token(&scene, &pod);
    let mount = files::mount_line(&target)?;

    clock.set(start + LIFE * 8 / 10 - Duration::from_secs(1));
    scene.kubelet().sync(&pod).await?;
    assert_eq!(next_token(&scene, &pod), first, "the same token until 80 % of its life");
    let again = || logins(&scene).len() >= 2;
    wait::until("a login when the store's token is over", again).await?;
    assert!(logins(&scene).iter().all(|token| *token == first), "the first token is all there is");

    clock.set(now);
    let second = next_token(&scene, &pod);
    assert_ne!(second, first, "refreshed");
    scene.kubelet().sync(&pod).await?;
    until_login_with(&scene, &second).await?;
    let of_second = || logins(&scene).iter().filter(|token| **token == second).count() >= 2;
    wait::until("another login with it", of_second).await?;
    let all = logins(&scene);
    let since = all.iter().skip_while(|token| **token == first);
    assert!(since.into_iter().all(|token| *token == second), "the old one is never used again");
    assert_eq!(files::mount_line(&target)?, mount, "the mount is untouched");
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_may_move_between_secrets_and_volume_context_while_the_pod_runs()
-> anyhow::Result<()> {
    let (scene, pod) = scene_that_logs_in_again().await?;
    let kubelet = scene.kubelet();
    let places = [
        (CsiDriver::parse(CSI_DRIVER)?, TokenPlace::Secrets),
        (before_1_35()?, TokenPlace::VolumeContext),
        (CsiDriver::parse(CSI_DRIVER)?, TokenPlace::Secrets),
    ];
    let mut target = None;
    for (driver, place) in places {
        kubelet.apply(driver);
        // Fresh tokens, as after 80 % of their life.
        kubelet.mint_with(Arc::new(|token| token));
        assert_eq!(next_tokens(&scene, &pod).0, place);
        match &target {
            None => target = Some(scene.publish(&pod).await?),
            Some(_) => kubelet.sync(&pod).await?,
        }
        until_login_with(&scene, &next_token(&scene, &pod)).await?;
    }
    let target = target.expect("it was published");
    assert_eq!(files::mounts_at(&target)?, 1);
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_publish_finds_the_tokens_at_either_place() -> anyhow::Result<()> {
    let (scene, _) = scene().await?;
    for (name, driver) in [("new-0", CsiDriver::parse(CSI_DRIVER)?), ("old-0", before_1_35()?)] {
        scene.kubelet().apply(driver);
        let pod = scene.pod(name, "checkout", "db");
        assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1", "{name}");
        scene.stop(&pod).await?;
    }
    Ok(())
}

/// Both occur during a roll-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_tokens_at_both_places_those_in_secrets_count() -> anyhow::Result<()> {
    let (scene, _) = scene().await?;
    let kubelet = scene.kubelet();
    for (name, right_in_secrets) in [("right-0", true), ("wrong-0", false)] {
        let pod = scene.pod(name, "checkout", "db");
        let volume = &pod.volumes[0];
        let target = kubelet.target(&pod, volume);
        std::fs::create_dir_all(target.parent().expect("a target has a parent"))?;
        let mut request = kubelet.request(&pod, volume);
        let right = request.secrets[TOKENS].clone();
        let wrong = json!({"bao": {"token": "not.a.token", "expirationTimestamp": ""}}).to_string();
        let (secrets, context) = if right_in_secrets { (right, wrong) } else { (wrong, right) };
        request.secrets.insert(TOKENS.to_owned(), secrets);
        request.volume_context.insert(TOKENS.to_owned(), context);
        let sent = kubelet.send(request).await;
        assert_eq!(sent.is_ok(), right_in_secrets, "{sent:?}");
        assert_eq!(files::mounts_at(&target)?, usize::from(right_in_secrets));
        if let Err(error) = sent {
            assert_eq!(error.code(), Code::Unauthenticated, "{error}");
            continue;
        }
        let id = sotto_dev::kubelet::volume_id(&pod, volume);
        kubelet.send_unpublish(&id, &target.to_string_lossy()).await?;
    }
    Ok(())
}

/// CSI's limit for a map is 4 KiB; a driver with several audiences exceeds it, and kubelet doesn't mind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_of_tokens_over_csis_limit_is_taken() -> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let more: String = (0..15)
        .map(|index| format!("    - audience: other-{index}\n      expirationSeconds: 600\n"))
        .collect();
    let many = CSI_DRIVER.replace("  tokenRequests:\n", &format!("  tokenRequests:\n{more}"));
    scene.kubelet().apply(CsiDriver::parse(&many)?);
    let bytes = next_tokens(&scene, &pod).1.len();
    assert!(bytes > 4096, "{bytes} bytes prove nothing");
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    scene.stop(&pod).await
}

/// Other data of nodePublishSecretRef's Secret is nobody's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_publish_secrets_are_ignored_and_not_logged() -> anyhow::Result<()> {
    let (scene, mut pod) = scene().await?;
    let secrets = &mut pod.volumes[0].publish_secrets;
    secrets.insert("clientsecret".to_owned(), "canary-publish-secret".to_owned());
    assert_eq!(files::read(scene.publish(&pod).await?.join("p")).await?, "p-1");
    for process in [scene.node().csi(), scene.node().agent()] {
        assert!(!process.log().text().contains("canary-publish-secret"));
    }
    scene.stop(&pod).await
}
