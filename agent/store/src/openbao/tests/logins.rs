use std::sync::atomic::{AtomicUsize, Ordering};

use super::bench::*;
use crate::config::AuthMethod;
use crate::error::StoreError;
use crate::fake::{FakeServer, Reply, Seen};
use crate::session::SecretStore;

/// A server where only the token of the last login is good.
async fn revoking(bench: &Bench, lifetime: u64, good_from: usize) -> FakeServer {
    let logins = AtomicUsize::new(0);
    FakeServer::start(bench.pki.mutual(), move |seen: &Seen| {
        if is_login(seen) {
            let number = logins.fetch_add(1, Ordering::Relaxed) + 1;
            return logged_in_for(&format!("hvs.{number}"), lifetime);
        }
        let number = seen.header("x-vault-token").and_then(|token| token.strip_prefix("hvs."));
        if number.unwrap().parse::<usize>().unwrap() >= good_from {
            let lease = format!(
                r#""lease_id":"db/{}","lease_duration":60,"renewable":true"#,
                number.unwrap()
            );
            Reply::ok(&format!(r#"{{{lease},"data":{{"k":"v"}}}}"#))
        } else {
            Reply::new(403, r#"{"errors":["permission denied"]}"#)
        }
    })
    .await
}

fn many() -> String {
    (0..30).map(|n| format!("- {{objectName: o{n}, secretPath: kv/{n}, secretKey: k}}\n")).collect()
}

fn logins(server: &FakeServer) -> usize {
    server.seen().iter().filter(|seen| is_login(seen)).count()
}

#[tokio::test]
async fn a_revoked_token_costs_one_login_and_everything_is_read() {
    let bench = Bench::new();
    let server = revoking(&bench, 600, 2).await;
    let fetch = bench.fetch(&server, &many()).await;
    assert!((0..30).all(|index| value(&fetch, index) == b"v"));
    assert_eq!(logins(&server), 2);
    assert_eq!(fetch.leases.len(), 30);
    assert!(fetch.leases.iter().all(|lease| lease.id.as_ref().unwrap().expose() == "db/2"));
}

#[tokio::test]
async fn a_second_invalid_token_in_one_fetch_is_final() {
    let bench = Bench::new();
    let server = revoking(&bench, 600, 99).await;
    let fetch = bench.fetch(&server, &many()).await;
    let refused = "store main no longer accepts the token of payments/checkout; ";
    assert!(message(&fetch, 29).starts_with(refused), "{}", message(&fetch, 29));
    assert_eq!(logins(&server), 2);
    assert!(server.seen().len() < 30, "no request once the token is known to be bad");
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced_before_it_is_sent() {
    let bench = Bench::new();
    let server = revoking(&bench, 1, 2).await;
    let fetch = bench.fetch(&server, ONE).await;
    assert_eq!(value(&fetch, 0), b"v");
    let reads = server.seen().iter().filter(|seen| !is_login(seen)).count();
    assert_eq!((logins(&server), reads), (2, 1));
}

#[tokio::test]
async fn what_was_read_under_a_lease_of_the_dead_token_is_read_again() {
    let bench = Bench::new();
    let server = bench
        .serve(|seen| match seen.target.as_str() {
            "/v1/db/creds" => Reply::ok(
                r#"{"lease_id":"l","lease_duration":60,"renewable":true,"data":{"k":"v"}}"#,
            ),
            _ => Reply::new(403, r#"{"errors":["permission denied"]}"#),
        })
        .await;
    let objects = "
- {objectName: a, secretPath: db/creds, secretKey: k}
- {objectName: b, secretPath: kv/b, secretKey: k}";
    let fetch = bench.fetch(&server, objects).await;
    assert_eq!(value(&fetch, 0), b"v");
    assert_eq!(server.log().iter().filter(|line| *line == "GET /v1/db/creds").count(), 2);
    assert_eq!(fetch.leases.len(), 1);
}

#[tokio::test]
async fn the_freshest_token_of_the_pod_is_used_for_a_new_login() {
    let bench = Bench::new();
    let server = revoking(&bench, 600, 2).await;
    let (store, plan) = bench.store(&server, ONE);
    let session = login(&store, &plan).await;
    session.renew_identity(&sotto_core::secret::SecretString::new("fresh.token".to_owned()));
    assert_eq!(value(&session.fetch(&plan).await, 0), b"v");
    let bodies: Vec<_> = server.seen().into_iter().filter(is_login).map(|seen| seen.body).collect();
    assert!(bodies[0].contains(JWT) && bodies[1].contains("fresh.token"));
}

#[tokio::test]
async fn a_policys_refusal_costs_no_login() {
    let bench = Bench::new();
    let denied = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
    let server = bench.serve(move |_| Reply::new(403, denied)).await;
    bench.fetch(&server, &many()).await;
    assert_eq!(logins(&server), 1);
    assert_eq!(server.seen().len(), 31);
}

/// Status and body of the store, and what the pod's event says.
const REFUSED_LOGINS: &[(u16, &str, &str)] = &[
    (
        400,
        r#"{"errors":["role \"payments\" could not be found"]}"#,
        r#"store main has no role "payments" at auth/pods; create it or correct roleName"#,
    ),
    (
        400,
        r#"{"errors":["invalid role name \"payments\""]}"#,
        r#"store main has no role "payments" at auth/pods; create it or correct roleName"#,
    ),
    (
        400,
        r#"{"errors":["error validating token: expired"]}"#,
        "store main refuses the login of payments/checkout at auth/pods: error validating token: expired; compare the role there with the pod's namespace, service account and token audience",
    ),
    (
        403,
        r#"{"errors":["permission denied"]}"#,
        "store main refuses the login of payments/checkout at auth/pods: permission denied; compare the role there with the pod's namespace, service account and token audience",
    ),
    (
        404,
        r#"{"errors":["no handler for route"]}"#,
        "store main refuses the login of payments/checkout at auth/pods: no handler for route; compare the role there with the pod's namespace, service account and token audience",
    ),
    (
        200,
        r#"{"data":{}}"#,
        "the answer of store main can't be read; check that its address is an OpenBao or Vault server",
    ),
    (503, r#"{"errors":["Vault is sealed"]}"#, "store main is sealed; unseal it"),
];

#[tokio::test]
async fn each_refusal_of_a_login_says_whose_and_why() {
    for (status, body, expected) in REFUSED_LOGINS {
        let bench = Bench::new();
        let reply = Reply::new(*status, *body);
        let server = FakeServer::start(bench.pki.mutual(), move |_| reply.clone()).await;
        let (store, plan) = bench.store(&server, ONE);
        let error = store.login(&plan, &jwt()).await.err().unwrap();
        assert_eq!(error.to_string(), *expected);
        assert_eq!(
            error.is_refusal(),
            expected.contains("has no role"),
            "only a missing role is certain"
        );
    }
}

#[tokio::test]
async fn the_cert_method_sends_a_role_and_no_token_of_the_pod() {
    let mut bench = Bench::new();
    bench.method = AuthMethod::Cert;
    let server = bench.serve(|_| kv("k", "v", 1)).await;
    bench.fetch(&server, ONE).await;
    assert_eq!(server.seen()[0].body, r#"{"name":"payments"}"#);
    assert!(server.seen().iter().all(|seen| !seen.body.contains(JWT)));
}

#[tokio::test]
async fn a_session_refuses_the_plan_of_another_pod() {
    let bench = Bench::new();
    let server = bench.serve(|_| kv("k", "v", 1)).await;
    let (store, plan) = bench.store(&server, ONE);
    let session = login(&store, &plan).await;
    let mut other = plan.clone();
    other.subject = crate::plan::Subject::from(&identity("intruder"));
    let fetch = session.fetch(&other).await;
    assert!(matches!(
        fetch.objects[0].as_ref().err(),
        Some(crate::ObjectError::Store(StoreError::OtherLogin { .. }))
    ));
    assert_eq!(server.seen().len(), 1, "nothing was read");
}

#[tokio::test]
async fn the_audience_and_the_life_of_the_token_are_told() {
    let bench = Bench::new();
    let server = bench.serve(|_| kv("k", "v", 1)).await;
    let (store, plan) = bench.store(&server, ONE);
    assert_eq!((store.name(), store.audience()), (&name("main"), &audience("bao")));
    let life = login(&store, &plan).await.token_life();
    assert_eq!(life.ttl, Some(std::time::Duration::from_secs(600)));
    assert!(life.renewable && !life.is_over());
}
