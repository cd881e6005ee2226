use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::bench::*;
use crate::error::{ObjectError, StoreError};
use crate::fake::{FakeServer, Pki, Reply, Seen};
use crate::session::SecretStore;

fn store_error(fetch: &crate::Fetch) -> StoreError {
    match fetch.objects[0].as_ref().err() {
        Some(ObjectError::Store(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

fn elsewhere(address: &str, target: &str) -> Reply {
    Reply::new(307, "").header("location", format!("{address}{target}"))
}

#[tokio::test]
async fn a_redirect_to_a_configured_host_with_the_same_path_is_followed() {
    let bench = Bench::new();
    let active = bench.serve(|_| kv("k", "v", 1)).await;
    let address = active.address();
    let standby =
        FakeServer::start(bench.pki.mutual(), move |seen| elsewhere(&address, &seen.target)).await;
    let (store, plan) = bench.store_with(&standby.address(), &[active.address()], ONE);
    let session = login(&store, &plan).await;
    assert_eq!(value(&session.fetch(&plan).await, 0), b"v");
    assert_eq!(active.log(), ["POST /v1/auth/pods/login", "GET /v1/secret/data/payments/db"]);
    assert_eq!(standby.log().len(), 1, "the host that answered is asked first from then on");
    assert!(active.seen()[0].body.contains(JWT), "the body goes along");
}

#[tokio::test]
async fn a_redirect_anywhere_else_is_refused_and_nothing_is_sent_there() {
    let bench = Bench::new();
    let other = bench.serve(|_| kv("k", "v", 1)).await;
    let (host, port) = (other.address(), other.address().rsplit(':').next().unwrap().to_owned());
    for location in [
        format!("{host}/v1/secret/data/payments/db"),
        "/v1/secret/data/other".to_owned(),
        "/v1/secret/data/payments/db".to_owned(),
        format!("http://127.0.0.1:{port}/v1/secret/data/payments/db"),
        "::not a location::".to_owned(),
    ] {
        let reply = Reply::new(307, "").header("location", location.clone());
        let server = bench.serve(move |_| reply.clone()).await;
        let fetch = bench.fetch(&server, ONE).await;
        assert!(matches!(store_error(&fetch), StoreError::RedirectRefused { .. }), "{location}");
        assert_eq!(server.log().len(), 2, "{location}");
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_on_the_same_host_to_another_path_is_refused() {
    let bench = Bench::new();
    let standby = bench.serve(|_| kv("k", "stolen", 1)).await;
    let address = standby.address();
    let server = bench.serve(move |_| elsewhere(&address, "/v1/secret/data/other")).await;
    let (store, plan) = bench.store_with(&server.address(), &[standby.address()], ONE);
    let fetch = login(&store, &plan).await.fetch(&plan).await;
    assert!(
        matches!(store_error(&fetch), StoreError::RedirectRefused { target, .. } if target == "another path")
    );
    assert!(standby.seen().is_empty());
}

#[tokio::test]
async fn hosts_that_redirect_in_a_circle_are_given_up() {
    let bench = Bench::new();
    let own = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let address = own.clone();
    let server = bench.serve(move |seen| elsewhere(address.get().unwrap(), &seen.target)).await;
    own.set(server.address()).unwrap();
    let fetch = bench.fetch(&server, ONE).await;
    assert!(matches!(store_error(&fetch), StoreError::RedirectRefused { .. }));
    assert_eq!(server.log().len(), 1 + 3);
}

#[tokio::test]
async fn a_sealed_or_dead_node_is_passed_over_for_another() {
    let bench = Bench::new();
    let active = bench.serve(|_| kv("k", "v", 1)).await;
    let sealed = FakeServer::start(bench.pki.mutual(), |_| {
        Reply::new(503, r#"{"errors":["Vault is sealed"]}"#)
    })
    .await;
    let (store, plan) = bench.store_with(&sealed.address(), &[active.address()], ONE);
    assert_eq!(value(&login(&store, &plan).await.fetch(&plan).await, 0), b"v");
    let dead = sealed.address();
    drop(sealed);
    let (store, plan) = bench.store_with(&dead, &[active.address()], ONE);
    assert_eq!(value(&login(&store, &plan).await.fetch(&plan).await, 0), b"v");
}

#[tokio::test]
async fn what_passes_soon_is_tried_once_more() {
    for body in [
        r#"{"errors":["Waiting for the primary to upgrade from Vault 0.8"]}"#,
        r#"{"errors":["local node not active but active cluster node not found"]}"#,
    ] {
        let status = if body.contains("Waiting") { 400 } else { 500 };
        let bench = Bench::new();
        let asked = AtomicUsize::new(0);
        let server = bench
            .serve(move |_: &Seen| match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Reply::new(status, body),
                _ => kv("k", "v", 1),
            })
            .await;
        assert_eq!(value(&bench.fetch(&server, ONE).await, 0), b"v");
    }
}

#[tokio::test]
async fn a_rate_limit_is_kept_and_the_rest_is_not_asked_for() {
    let bench = Bench::new();
    let limited = r#"{"errors":["request path \"x\": rate limit quota exceeded"]}"#;
    let server = bench.serve(move |_| Reply::new(429, limited).header("retry-after", "17")).await;
    let objects: String = (0..100)
        .map(|n| format!("- {{objectName: o{n}, secretPath: secret/data/{n}, secretKey: k}}\n"))
        .collect();
    let fetch = bench.fetch(&server, &objects).await;
    assert_eq!(fetch.retry_after(), Some(Duration::from_secs(17)));
    assert_eq!(
        message(&fetch, 99),
        "store main limits the rate of requests; asked again later: if that lasts, raise its rate limit"
    );
    assert!(server.log().len() <= 1 + 8, "{}", server.log().len());
}

#[tokio::test]
async fn a_write_that_may_have_been_carried_out_is_not_repeated() {
    let bench = Bench::new();
    let server = bench.serve(|_| Reply::new(502, "<html>")).await;
    let fetch = bench
        .fetch(&server, "[{objectName: a, secretPath: pki/issue/x, method: PUT, secretKey: k}]")
        .await;
    assert!(matches!(store_error(&fetch), StoreError::Unavailable { .. }));
    assert_eq!(server.log().len(), 2);
    let server = bench.serve(|_| Reply::new(502, "<html>")).await;
    bench.fetch(&server, ONE).await;
    assert_eq!(server.log().len(), 3, "a GET is tried once more");
}

#[tokio::test]
async fn an_unreachable_a_slow_and_an_untrusted_store_are_told_apart() {
    let mut bench = Bench::new();
    bench.timing.exchange = Duration::from_millis(100);
    let server = FakeServer::start(bench.pki.mutual(), |_| Reply::never()).await;
    let (store, plan) = bench.store(&server, ONE);
    let error = store.login(&plan, &jwt()).await.err().unwrap().to_string();
    assert!(error.starts_with("store main gave no answer within 100ms"), "{error}");
    let bench = Bench::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (store, plan) = bench.store_with(&format!("https://{closed}"), &[], ONE);
    let error = store.login(&plan, &jwt()).await.err().unwrap().to_string();
    assert!(error.starts_with("store main is unreachable: "), "{error}");
    let stranger = Pki::new();
    let config = stranger.one_way(&stranger.identity(), &rustls::version::TLS13);
    let server = FakeServer::start(config, |_| logged_in("hvs.stolen")).await;
    let (store, plan) = bench.store(&server, ONE);
    let error = store.login(&plan, &jwt()).await.err().unwrap();
    assert!(matches!(error, StoreError::Untrusted { .. }), "{error}");
    assert!(server.seen().is_empty(), "the pod's token was sent");
}

#[tokio::test]
async fn a_slow_store_costs_a_fetch_its_deadline_however_many_objects_there_are() {
    let mut bench = Bench::new();
    bench.timing.fetch = Duration::from_millis(300);
    let server = bench.serve(|_| Reply::never()).await;
    let objects: String = (0..100)
        .map(|n| format!("- {{objectName: o{n}, secretPath: secret/data/{n}, secretKey: k}}\n"))
        .collect();
    let (store, plan) = bench.store(&server, &objects);
    let session = login(&store, &plan).await;
    let started = std::time::Instant::now();
    let fetch = session.fetch(&plan).await;
    assert!(matches!(store_error(&fetch), StoreError::Deadline { .. }));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_standby_is_told_which_state_the_login_created() {
    let bench = Bench::new();
    let server = FakeServer::start(bench.pki.mutual(), |seen| {
        if is_login(seen) {
            logged_in("hvs.one").header("x-vault-index", "state-7")
        } else {
            kv("k", "v", 1)
        }
    })
    .await;
    bench.fetch(&server, ONE).await;
    let read = &server.seen()[1];
    assert_eq!(read.header("x-vault-index"), Some("state-7"));
    assert_eq!(read.header("x-vault-inconsistent"), Some("forward-active-node"));
}
