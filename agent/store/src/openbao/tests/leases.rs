use std::time::Duration;

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
    assert_eq!(format!("{:?}", lease.id), "LeaseId(..)");
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
