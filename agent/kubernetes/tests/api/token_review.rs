//! TokenReviews over the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sotto_core::identity::Audience;
use sotto_core::secret::SecretString;
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_kubernetes::api_error::ApiError;
use sotto_kubernetes::token_review::{Authenticated, ReviewError, TokenReviewer};
use tokio::time::Instant;

use crate::kit::{LONG, cluster};

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLW9mLXg";
const REVIEWS: &str = "tokenreviews";

async fn review(server: &FakeApiServer, deadline: Duration) -> Result<Authenticated, ReviewError> {
    let reviewer = TokenReviewer::new(&cluster(server).await, deadline);
    let token = SecretString::new(TOKEN.to_owned());
    reviewer.review(&token, &Audience::parse("bao").unwrap()).await
}

/// Knows one token, for one audience, as the API server does.
async fn server() -> FakeApiServer {
    let server = FakeApiServer::start().await.unwrap();
    server.answer_token_reviews(|review| {
        if review.token != TOKEN {
            return json!({"authenticated": false, "error": "[invalid bearer token]"});
        }
        json!({"authenticated": true, "audiences": review.audiences, "user": {
            "username": "system:serviceaccount:shop:web",
            "groups": ["system:serviceaccounts"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["web-0"],
                "authentication.kubernetes.io/pod-uid": ["uid-0"],
                "authentication.kubernetes.io/node-name": ["node-1"],
                "authentication.kubernetes.io/node-uid": ["uid-n"],
                "authentication.kubernetes.io/credential-id": ["JTI=1"]}}})
    });
    server
}

#[tokio::test]
async fn a_good_token_is_told_with_its_pod_and_the_audience_is_asked_for() {
    let server = server().await;
    let who = review(&server, LONG).await.unwrap();
    assert_eq!((who.pod_name.as_str(), who.node.as_str()), ("web-0", "node-1"));
    let request = server.requests_of("create", REVIEWS).remove(0);
    assert_eq!(request.group, "authentication.k8s.io");
    assert_eq!(request.body["spec"], json!({"token": TOKEN, "audiences": ["bao"]}));
}

#[tokio::test]
async fn a_deleted_pods_token_is_refused_and_that_is_no_outage() {
    let server = server().await;
    server.answer_token_reviews(|_| {
        json!({"authenticated": false, "error":
            "[invalid bearer token, pod \"web-0\" not found]"})
    });
    let error = review(&server, LONG).await.unwrap_err();
    assert!(matches!(&error, ReviewError::Unauthenticated { .. }) && !error.is_outage());
    assert_eq!(
        error.to_string(),
        "the API server refuses the token: [invalid bearer token, pod \"web-0\" not found]"
    );
}

#[tokio::test]
async fn a_server_that_gives_no_answer_is_an_outage_and_never_a_yes() {
    let server = server().await;
    for fault in [
        Fault::Status(500),
        Fault::RetryAfter { code: 429, seconds: 1 },
        Fault::Disconnect,
        Fault::Garbage,
    ] {
        // Twice: a connection that breaks before an answer may be tried again by the client.
        server.fail("create", REVIEWS, fault.clone(), 2);
        let error = review(&server, LONG).await.unwrap_err();
        assert!(error.is_outage(), "{fault:?}: {error}");
        assert!(!error.to_string().contains("eyJ"), "{error}");
        server.heal();
    }
    server.go_dark().await;
    assert!(review(&server, LONG).await.unwrap_err().is_outage());
}

/// Everything that is logged on this thread, down to trace.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_token_is_in_no_log_whatever_the_answer() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let server = server().await;
    review(&server, LONG).await.unwrap();
    // An answer that repeats the request and isn't what was asked for.
    server.answer_token_reviews(|review| json!({"authenticated": review.token}));
    assert!(review(&server, LONG).await.unwrap_err().is_outage());
    server.answer_token_reviews(|review| json!({"error": review.token}));
    review(&server, LONG).await.unwrap_err();
    tracing::info!("the end");
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("the end"), "nothing was logged at all");
    for part in TOKEN.split('.') {
        assert!(!text.contains(part), "the token was logged");
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let server = server().await;
    server.fail("create", REVIEWS, Fault::Hang, 1);
    let deadline = Duration::from_millis(100);
    let begun = Instant::now();
    let error = review(&server, deadline).await.unwrap_err();
    assert_eq!(error, ReviewError::Api(ApiError::Deadline(deadline)));
    assert!(begun.elapsed() < LONG);
}

#[tokio::test]
async fn a_missing_permission_is_not_taken_for_a_refused_token() {
    let server = server().await;
    server.allow_only(&json!([]));
    let error = review(&server, LONG).await.unwrap_err();
    assert!(matches!(&error, ReviewError::Api(ApiError::Forbidden { .. })), "{error}");
}

#[tokio::test]
async fn a_waiting_review_gives_up_at_its_deadline_too() {
    let server = server().await;
    server.fail("create", REVIEWS, Fault::Hang, 1000);
    let deadline = Duration::from_millis(200);
    let reviewer = TokenReviewer::new(&cluster(&server).await, deadline);
    let reviews = (0..40).map(|_| {
        let reviewer = reviewer.clone();
        tokio::spawn(async move {
            let token = SecretString::new(TOKEN.to_owned());
            reviewer.review(&token, &Audience::parse("bao").unwrap()).await
        })
    });
    for review in reviews.collect::<Vec<_>>() {
        let answer = tokio::time::timeout(LONG, review).await.unwrap().unwrap();
        assert_eq!(answer, Err(ReviewError::Api(ApiError::Deadline(deadline))));
    }
    assert!(server.requests_of("create", REVIEWS).len() <= 16, "at most sixteen at once");
}
