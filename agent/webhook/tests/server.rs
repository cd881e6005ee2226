//! The server over real TLS: what it answers, what it refuses, renewed certificates, the drain.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "server/kit.rs"]
mod kit;

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use kit::{Kit, review};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_pod_that_asks_is_patched_over_tls() {
    let kit = Kit::start().await;
    let (status, answer) = kit.post("application/json", &review("1")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["response"]["uid"], "1");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    kit.finish().await;
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_its_status() {
    let kit = Kit::start().await;
    let good = review("1");
    for (content_type, body, expected) in [
        ("application/json", "{".to_owned(), StatusCode::BAD_REQUEST),
        ("application/json", "[]".to_owned(), StatusCode::BAD_REQUEST),
        ("application/json", String::new(), StatusCode::BAD_REQUEST),
        ("application/json", "[".repeat(100_000), StatusCode::BAD_REQUEST),
        ("application/yaml", good.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("", good.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json; charset=utf-8", good.clone(), StatusCode::OK),
    ] {
        let (status, _) = kit.post(content_type, &body).await;
        assert_eq!(status, expected, "{content_type} {}", &body[..body.len().min(20)]);
    }
    assert_eq!(kit.request("GET", "/mutate", "").await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(kit.request("POST", "/", &good).await, StatusCode::NOT_FOUND);
    assert_eq!(kit.request("POST", "/mutate?timeout=5s", &good).await, StatusCode::OK);
    kit.finish().await;
}

#[tokio::test]
async fn a_body_over_3_mib_is_refused_whether_its_length_is_told_or_not() {
    let kit = Kit::start().await;
    let padding = "x".repeat(3 << 20);
    let body = json!({"padding": padding}).to_string();
    let mut stream = kit.connect(&kit.ca).await.unwrap();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(kit::head(&mut stream).await.starts_with("HTTP/1.1 413"));
    let mut stream = kit.connect(&kit.ca).await.unwrap();
    let head = "POST /mutate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The answer may come, and the connection end, before all of it is written.
    let _ = stream.write_all(chunk.as_bytes()).await;
    assert!(kit::head(&mut stream).await.starts_with("HTTP/1.1 413"));
    kit.finish().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let kit = Kit::start().await;
    let mut stream = kit.connect(&kit.ca).await.unwrap();
    let head = "POST /mutate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(kit::head(&mut stream).await.starts_with("HTTP/1.1 408"));
    kit.finish().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_served_under_calls_without_a_failure() {
    let mut kit = Kit::start().await;
    for round in 0..5 {
        let old = kit.ca.clone();
        let new = kit.renew();
        // As caBundle has both while the files are replaced.
        let both = format!("{old}{new}");
        let until = tokio::time::Instant::now() + DEADLINE;
        while kit.connect(&new).await.is_err() {
            assert!(tokio::time::Instant::now() < until, "round {round}: the old one is served");
            let (status, _) = kit.post_by(&both, "application/json", &review("1")).await;
            assert_eq!(status, StatusCode::OK);
        }
        assert!(kit.connect(&old).await.is_err(), "the old one is no longer served");
        kit.ca = new;
    }
    kit.finish().await;
}

#[tokio::test]
async fn a_stranger_s_ca_and_tls_1_2_get_no_connection() {
    let kit = Kit::start().await;
    assert!(kit.connect(&kit::stranger()).await.is_err());
    assert!(kit.greet_with_tls_1_2().await.is_err());
    kit.finish().await;
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_refuses_new_ones() {
    let kit = Kit::start().await;
    let mut idle = kit.connect(&kit.ca).await.unwrap();
    let (ca, address) = (kit.ca.clone(), kit.address);
    kit.finish().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, idle.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "{rest:?}");
    assert!(kit::connect(address, &ca).await.is_err());
}
