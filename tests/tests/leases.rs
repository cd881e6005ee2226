//! Dynamic secrets at a real OpenBao with a real PostgreSQL: leases live and die with the pod.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::{Value, json};
use sotto_dev::bao::{Bao, jwt_role};
use sotto_dev::kubelet::Pod;
use sotto_dev::postgres::Postgres;
use sotto_tests::files::blocking;
use sotto_tests::scene::Scene;
use tokio::time::{Instant, timeout};

/// From a lease's end to the role's end in PostgreSQL, or of a whole wait for it.
const SOON: Duration = Duration::from_secs(20);
/// Within this an unpublished pod's credentials are gone from PostgreSQL.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq)]
struct Credentials {
    user: String,
    password: String,
}

/// What one resolved generation of the volume holds.
async fn pair(target: &Path, names: [&'static str; 2]) -> anyhow::Result<(PathBuf, [String; 2])> {
    let target = target.to_owned();
    blocking(move || {
        let generation = std::fs::read_link(target.join("..data"))?;
        let read = |name| std::fs::read_to_string(target.join(&generation).join(name));
        let values = [read(names[0])?, read(names[1])?];
        Ok((generation, values))
    })
    .await
}

async fn credentials(target: &Path) -> anyhow::Result<Credentials> {
    let (_, [user, password]) = pair(target, ["username", "password"]).await?;
    Ok(Credentials { user, password })
}

/// A pod with credentials of a database whose leases live for `ttl`, at most for `max_ttl`.
async fn with_database(
    scene: &Scene<Bao>,
    ttl: (&str, &str),
    login: Value,
) -> anyhow::Result<(Postgres, Pod, PathBuf)> {
    let postgres = Postgres::start().await?;
    scene.store().enable_database(&postgres, ttl, login).await?;
    scene.class(
        "database",
        "- {objectName: username, secretPath: database/creds/payments, secretKey: username}\n\
         - {objectName: password, secretPath: database/creds/payments, secretKey: password}",
    )?;
    let pod = scene.pod("checkout-0", "checkout", "database");
    let target = scene.publish(&pod).await?;
    Ok((postgres, pod, target))
}

async fn connects(postgres: &Postgres, with: &Credentials) -> anyhow::Result<()> {
    let said = postgres.ask(&with.user, &with.password, "SELECT current_user").await?;
    anyhow::ensure!(said == with.user, "connected as {said}");
    Ok(())
}

/// Connects again and again until the volume has other credentials; returns them, and when they came.
async fn used_until_rotated(
    postgres: &Postgres,
    target: &Path,
    first: &Credentials,
) -> anyhow::Result<Credentials> {
    let rotated = async {
        loop {
            let now = credentials(target).await?;
            if now != *first {
                return anyhow::Ok(now);
            }
            connects(postgres, first).await.context("the credentials in the file are not good")?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(3 * SOON, rotated).await.context("they were never rotated")?
}

async fn gone_after_unpublish(
    scene: &Scene<Bao>,
    postgres: &Postgres,
    pod: &Pod,
) -> anyhow::Result<()> {
    anyhow::ensure!(!postgres.roles().await?.is_empty(), "the check would see a role");
    let began = Instant::now();
    scene.stop(pod).await?;
    let gone = async {
        while !postgres.roles().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(REVOKED_WITHIN - began.elapsed(), gone).await.context("roles are left")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_renewed_rotated_at_their_maximum_and_gone_after_unpublish()
-> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    let (postgres, pod, target) = with_database(&scene, ("6s", "25s"), jwt_role()).await?;
    let (began, first) = (Instant::now(), credentials(&target).await?);

    let second = used_until_rotated(&postgres, &target, &first).await?;
    connects(&postgres, &first).await.context("the old ones are no longer good beside the new")?;
    connects(&postgres, &second).await?;
    let lived = began.elapsed();
    assert!(lived >= 3 * Duration::from_secs(6), "renewed over three periods, not {lived:?}");
    assert!(lived < Duration::from_secs(25), "rotated before the maximum, not after {lived:?}");
    let (generation, _) = pair(&target, ["username", "password"]).await?;
    assert_eq!(generation, Path::new("..2"), "one turn in all that time");

    let ended = async {
        while connects(&postgres, &first).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, ended).await.context("the old ones live on")?;
    connects(&postgres, &second).await?;
    gone_after_unpublish(&scene, &postgres, &pod).await?;
    Ok(postgres.end().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_outlive_the_store_token_that_they_were_read_with() -> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    let mut login = jwt_role();
    (login["token_ttl"], login["token_max_ttl"]) = (json!("6s"), json!("25s"));
    let (postgres, pod, target) = with_database(&scene, ("1h", "24h"), login).await?;
    let (began, first) = (Instant::now(), credentials(&target).await?);

    let second = used_until_rotated(&postgres, &target, &first).await?;
    connects(&postgres, &first).await.context("the old ones ended with their token too early")?;
    connects(&postgres, &second).await?;
    let lived = began.elapsed();
    assert!(lived >= 3 * Duration::from_secs(6), "the token was renewed, not {lived:?}");
    assert!(lived < Duration::from_secs(25), "before the token's maximum, not after {lived:?}");
    gone_after_unpublish(&scene, &postgres, &pod).await?;
    Ok(postgres.end().await?)
}

/// When the certificate ends, and whether the key is its own.
fn certificate(certificate: &str, key: &str) -> anyhow::Result<SystemTime> {
    let key = rcgen::KeyPair::from_pem(key)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())?;
    let certificate = pem.parse_x509()?;
    let public = certificate.public_key().subject_public_key.data.as_ref();
    anyhow::ensure!(public == rcgen::PublicKeyData::der_bytes(&key), "another certificate's key");
    let end = u64::try_from(certificate.validity().not_after.timestamp())?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_before_its_end_with_its_key_in_one_generation()
-> anyhow::Result<()> {
    let scene = Scene::openbao().await?;
    scene.store().enable_pki().await?;
    let request = "secretPath: pki/issue/payments-checkout, method: PUT, \
                   secretArgs: {common_name: checkout.payments.invalid, ttl: 8s}";
    scene.class(
        "pki",
        &format!(
            "- {{objectName: tls.crt, {request}, secretKey: certificate}}\n\
             - {{objectName: tls.key, {request}, secretKey: private_key}}"
        ),
    )?;
    let pod = scene.pod("pki-0", "checkout", "pki");
    let target = scene.publish(&pod).await?;
    let mut seen = Vec::new();
    let renewed = async {
        while seen.len() < 3 {
            let (generation, [crt, key]) = pair(&target, ["tls.crt", "tls.key"]).await?;
            let end = certificate(&crt, &key).with_context(|| format!("in {generation:?}"))?;
            anyhow::ensure!(SystemTime::now() < end, "a certificate that has ended is served");
            if seen.last() != Some(&generation) {
                seen.push(generation);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(2 * SOON, renewed).await.context("it was never renewed")??;
    assert_eq!(seen, ["..1", "..2", "..3"].map(PathBuf::from), "one turn a certificate");
    scene.stop(&pod).await
}
