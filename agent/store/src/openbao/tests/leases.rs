use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bench::*;
use crate::error::StoreError;
use crate::fake::{FakeServer, Reply};
use crate::session::LeaseId;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn leases_are_collected_with_the_objects_that_die_with_them() {
    let bench = Bench::new();
    let server = bench
        .serve(|seen| match seen.target.as_str() {
            "/v1/database/creds/ro" => Reply::ok(
                r#"{"lease_id":"database/creds/ro/x","lease_duration":3600,"renewable":true,"data":{"username":"u","password":"p"}}"#,
            ),
            _ => kv("k", "v", 1),
        })
        .await;
    let fetch = bench
        .fetch(
            &server,
            "
- {objectName: kv, secretPath: secret/data/x, secretKey: k}
- {objectName: user, secretPath: database/creds/ro, secretKey: username}
- {objectName: password, secretPath: database/creds/ro, secretKey: password}",
        )
        .await;
    let [lease] = fetch.leases.as_slice() else { panic!("{:?}", fetch.leases) };
    assert_eq!(lease.objects, [1, 2]);
    assert_eq!((lease.life.duration, lease.life.renewable), (HOUR, true));
    assert_eq!(format!("{:?}", lease.id), "Some(LeaseId(..))");
}

#[tokio::test]
async fn a_certificate_without_a_lease_lives_to_its_expiration() {
    let bench = Bench::new();
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + HOUR;
    let answer = format!(
        r#"{{"lease_id":"","data":{{"certificate":"C","private_key":"K","expiration":{}}}}}"#,
        end.as_secs()
    );
    let server = bench.serve(move |_| Reply::ok(&answer)).await;
    let issued = "secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: a.invalid}";
    let objects = |request: &str| {
        format!(
            "\n- {{objectName: crt, {request}, secretKey: certificate}}\n\
             - {{objectName: key, {request}, secretKey: private_key}}"
        )
    };
    let fetch = bench.fetch(&server, &objects(issued)).await;
    let [lease] = fetch.leases.as_slice() else { panic!("{:?}", fetch.leases) };
    assert_eq!((&lease.id, &lease.objects[..]), (&None, &[0, 1][..]));
    assert!(!lease.life.renewable);
    let left = lease.life.duration;
    assert!(left <= HOUR && left > HOUR - Duration::from_secs(30), "{left:?}");
    let read = bench.fetch(&server, &objects("secretPath: kv/of-a-user")).await;
    assert_eq!(read.leases, [], "a value that was only read may say what it likes");
}

#[tokio::test]
async fn a_new_login_keeps_the_old_token_and_both_are_revoked_at_the_end() {
    let bench = Bench::new();
    let logins = std::sync::atomic::AtomicUsize::new(0);
    let server = FakeServer::start(bench.pki.mutual(), move |seen| {
        if !is_login(seen) {
            return Reply::new(204, "");
        }
        let number = logins.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        logged_in_for(&format!("hvs.{number}"), 1200)
    })
    .await;
    let (store, plan) = bench.store(&server, ONE);
    let session = login(&store, &plan).await;
    let life = session.log_in_anew().await.unwrap();
    assert_eq!(session.token_life(), life);
    session.revoke().await.unwrap();
    let revoked: Vec<_> = server
        .seen()
        .iter()
        .filter(|seen| seen.target == "/v1/auth/token/revoke-self")
        .filter_map(|seen| seen.header("x-vault-token").map(str::to_owned))
        .collect();
    assert_eq!(revoked.len(), 2, "{revoked:?}");
    assert!(revoked.contains(&"hvs.0".to_owned()) && revoked.contains(&"hvs.1".to_owned()));
}

#[tokio::test]
async fn a_lease_is_renewed_and_one_that_is_gone_is_told() {
    let bench = Bench::new();
    let server = bench
        .serve(|seen| {
            assert_eq!(seen.target, "/v1/sys/leases/renew");
            if seen.body.contains("gone") {
                return Reply::new(400, r#"{"errors":["lease not found"]}"#);
            }
            assert_eq!(seen.body, r#"{"increment":3600,"lease_id":"live"}"#);
            Reply::ok(r#"{"lease_id":"live","lease_duration":1800,"renewable":true}"#)
        })
        .await;
    let (store, plan) = bench.store(&server, ONE);
    let session = login(&store, &plan).await;
    let renewed = session.renew_lease(&LeaseId::new("live"), HOUR).await.unwrap();
    assert_eq!(renewed.duration, HOUR / 2);
    let error = session.renew_lease(&LeaseId::new("gone"), HOUR).await.unwrap_err();
    assert_eq!(error, StoreError::NoSuchLease { store: name("main") });
}

#[tokio::test]
async fn the_token_is_renewed_and_its_new_life_is_kept() {
    let bench = Bench::new();
    let server = bench
        .serve(|seen| {
            assert_eq!(seen.target, "/v1/auth/token/renew-self");
            logged_in_for("hvs.one", 1200)
        })
        .await;
    let (store, plan) = bench.store(&server, ONE);
    let session = login(&store, &plan).await;
    let life = session.renew_token(HOUR).await.unwrap();
    assert_eq!(life.ttl, Some(Duration::from_secs(1200)));
    assert_eq!(session.token_life(), life);
}

#[tokio::test]
async fn revoking_ends_the_token_and_may_be_repeated() {
    let bench = Bench::new();
    let server = bench
        .serve(|seen| {
            assert_eq!(seen.target, "/v1/auth/token/revoke-self");
            assert_eq!(seen.header("x-vault-token"), Some("hvs.one"));
            Reply::new(204, "")
        })
        .await;
    let (store, plan) = bench.store(&server, ONE);
    login(&store, &plan).await.revoke().await.unwrap();
    let gone = bench.serve(|_| Reply::new(403, r#"{"errors":["permission denied"]}"#)).await;
    let (store, plan) = bench.store(&gone, ONE);
    login(&store, &plan).await.revoke().await.unwrap();
}

#[tokio::test]
async fn a_batch_token_is_left_to_its_own_end() {
    let bench = Bench::new();
    let batch = r#"{"auth":{"client_token":"hvb.x","lease_duration":60,"renewable":false,"token_type":"batch"}}"#;
    let server = FakeServer::start(bench.pki.mutual(), |_| Reply::ok(batch)).await;
    let (store, plan) = bench.store(&server, ONE);
    login(&store, &plan).await.revoke().await.unwrap();
    assert_eq!(server.seen().len(), 1);
}
