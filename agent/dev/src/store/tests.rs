use std::time::Duration;

use http::Method;
use serde_json::json;

use super::*;
use crate::client::{HttpsClient, Reply};
use crate::issuer::{Algorithm, DEMO_ISSUER, PodTokenSpec};

struct Stage {
    authority: Authority,
    issuer: Issuer,
    store: DevStore,
    client: HttpsClient,
}

async fn stage() -> Stage {
    let authority = Authority::new("ca").unwrap();
    let issuer = Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256]).unwrap();
    let store = DevStore::start(&authority, &issuer).await.unwrap();
    let credential = authority.client(CLIENT_NAME).unwrap();
    let address = store.access().address;
    let client = HttpsClient::new(address, authority.certificate_pem(), Some(&credential)).unwrap();
    Stage { authority, issuer, store, client }
}

impl Stage {
    async fn get(&self, path: &str, token: &str) -> Reply {
        self.client.send(Method::GET, path, Some(token), None).await.unwrap()
    }

    async fn login(&self, service_account: &str) -> String {
        let token =
            self.issuer.mint(&PodTokenSpec::new("payments", service_account, "p-0", "node-1"));
        let body = json!({"role": ROLE, "jwt": token});
        let reply =
            self.client.send(Method::POST, "/v1/auth/jwt/login", None, Some(&body)).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.errors());
        reply.body["auth"]["client_token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_ca_is_refused() {
    let stage = stage().await;
    let stranger = Authority::new("other").unwrap().client(CLIENT_NAME).unwrap();
    for credential in [None, Some(&stranger)] {
        let ca = stage.authority.certificate_pem();
        let client = HttpsClient::new(stage.store.access().address, ca, credential).unwrap();
        assert!(client.send(Method::GET, "/v1/sys/health", None, None).await.is_err());
    }
    assert!(stage.store.requests().is_empty());
}

#[tokio::test]
async fn what_tls_agreed_on_is_recorded_with_the_clients_name() {
    let stage = stage().await;
    stage.get("/v1/sys/health", "").await;
    let peer = &stage.store.requests()[0].peer;
    assert_eq!(peer.protocol, "TLSv1_3");
    assert_eq!(peer.client.as_deref(), Some(CLIENT_NAME));
}

#[tokio::test]
async fn a_pod_reads_its_own_secrets_and_nobody_elses() {
    let stage = stage().await;
    for path in ["payments/checkout/db", "payments/web/db"] {
        stage.store.write(path, json!({"password": path})).await.unwrap();
    }
    let token = stage.login("checkout").await;
    let own = stage.get("/v1/secret/data/payments/checkout/db", &token).await;
    assert_eq!(own.body["data"]["data"]["password"], "payments/checkout/db");
    let other = stage.get("/v1/secret/data/payments/web/db", &token).await;
    assert_eq!((other.status, other.errors().as_str()), (403, reply::POLICY_DENIES));
    stage.store.remove_policy(POD_POLICY).await.unwrap();
    assert_eq!(stage.get("/v1/secret/data/payments/checkout/db", &token).await.status, 403);
}

#[tokio::test]
async fn a_revoked_token_is_told_from_a_denied_one() {
    let stage = stage().await;
    let token = stage.login("checkout").await;
    assert_eq!(stage.store.tokens(), 1);
    let revoked =
        stage.client.send(Method::POST, "/v1/auth/token/revoke-self", Some(&token), None).await;
    assert_eq!(revoked.unwrap().status, 204);
    assert_eq!(stage.store.tokens(), 0);
    let reply = stage.get("/v1/secret/data/payments/checkout/db", &token).await;
    assert_eq!((reply.status, reply.errors().as_str()), (403, reply::INVALID_TOKEN));
}

/// The table of `facts/openbao.md`.
#[tokio::test]
async fn each_fault_answers_with_its_row_of_the_status_table() {
    let stage = stage().await;
    let admin = stage.store.admin_token();
    for (fault, status, error) in [
        (Fault::InvalidToken, 403, "permission denied"),
        (Fault::Denied, 403, "1 error occurred:\n\t* permission denied\n\n"),
        (Fault::Upgrading, 400, "Waiting for the primary to upgrade"),
        (Fault::RateLimited(Some(7)), 429, "rate limit quota exceeded"),
        (Fault::Sealed, 503, "Vault is sealed"),
        (Fault::NoLeader, 500, "local node not active but active cluster node not found"),
    ] {
        stage.store.fail(Some(Operation::Read), fault.clone(), Some(1));
        let reply = stage.get("/v1/secret/data/x", &admin).await;
        assert_eq!(reply.status, status, "{fault:?}");
        assert!(reply.errors().contains(error), "{fault:?}: {}", reply.errors());
        let retry_after = reply.headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(retry_after, (status == 429).then_some("7"));
    }
    assert_eq!(stage.get("/v1/secret/data/x", &admin).await.status, 404, "faults are used up");
    assert_eq!(stage.store.count(Operation::Read), 7);
}

#[tokio::test]
async fn a_slow_store_answers_late_and_a_cut_one_not_at_all() {
    let stage = stage().await;
    stage.store.fail(None, Fault::Slow(Duration::from_millis(50)), Some(1));
    let begun = std::time::Instant::now();
    assert_eq!(stage.get("/v1/sys/health", "").await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    stage.store.fail(Some(Operation::Health), Fault::Disconnect, None);
    let send = || stage.client.send(Method::GET, "/v1/sys/health", None, None);
    assert!(send().await.is_err());
    stage.store.heal();
    assert!(send().await.is_ok());
}

#[tokio::test]
async fn an_outage_ends_with_everything_as_it_was() {
    let stage = stage().await;
    stage.store.write("payments/checkout/db", json!({"a": "b"})).await.unwrap();
    let token = stage.login("checkout").await;
    stage.store.go_dark();
    assert!(stage.client.send(Method::GET, "/v1/sys/health", None, None).await.is_err());
    stage.store.come_back().await.unwrap();
    assert_eq!(stage.get("/v1/secret/data/payments/checkout/db", &token).await.status, 200);
}

#[tokio::test]
async fn a_standby_redirects_where_it_is_told_to() {
    let stage = stage().await;
    let location = "https://bao-1.example:8200/v1/secret/data/x";
    stage.store.fail(None, Fault::Redirect(location.to_owned()), Some(1));
    let reply = stage.get("/v1/secret/data/x", "").await;
    assert_eq!((reply.status, reply.headers["location"].to_str().unwrap()), (307, location));
}

#[tokio::test]
async fn renewals_end_with_the_longest_life() {
    let stage = stage().await;
    let mut role = Role::of_namespace("payments");
    role.token_max_ttl = Duration::from_secs(700);
    stage.store.put_role("jwt", ROLE, role);
    let token = stage.login("checkout").await;
    let body = json!({"increment": "3600s"});
    let path = "/v1/auth/token/renew-self";
    let reply = stage.client.send(Method::POST, path, Some(&token), Some(&body)).await.unwrap();
    let seconds = reply.body["auth"]["lease_duration"].as_u64().unwrap();
    assert!((690..=700).contains(&seconds), "{seconds}");
}
