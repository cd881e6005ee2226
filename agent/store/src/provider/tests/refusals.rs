//! Providers that don't answer, or with a refusal.

use std::time::Duration;

use sotto_core::secret::SecretString;
use tonic::Code;

use super::bench::*;
use crate::error::StoreError;
use crate::provider::ProviderError;
use crate::session::PublishSecrets;

#[tokio::test]
async fn a_provider_that_is_not_installed_is_named_with_where_it_was_looked_for() {
    let bench = Bench::new();
    std::fs::write(bench.directory("first").join("aws.sock"), "no socket").unwrap();
    let message = error(&bench.fetch().await).to_string();
    let (first, second) = (bench.directory("first"), bench.directory("second"));
    assert_eq!(
        message,
        format!(
            "provider aws is not installed on this node: no socket aws.sock in {} or {}; install it, or correct the store's directories",
            first.display(),
            second.display()
        )
    );
}

#[tokio::test]
async fn the_first_directory_that_has_the_socket_is_used_and_it_may_come_later() {
    let bench = Bench::new();
    let (session, plan) = bench.session().await;
    assert!(matches!(error(&session.fetch(&plan).await), ProviderError::NotInstalled { .. }));
    let second = bench.provider(Behaviour::Files(vec![file("a", "second", "1")]));
    assert_eq!(table(&session.fetch(&plan).await)[0].1, "second");
    let first = Behaviour::Files(vec![file("a", "first", "1")]);
    let _first = start(&bench.directory("first"), first);
    assert_eq!(table(&session.fetch(&plan).await)[0].1, "first");
    assert_eq!(second.seen().len(), 1);
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_an_outage() {
    let bench = Bench::new();
    let socket = bench.directory("second").join("aws.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = error(&bench.fetch().await);
    assert_eq!(
        error.to_string(),
        format!(
            "provider aws is unavailable: nobody listens at {}; check its pod on this node",
            socket.display()
        )
    );
    assert!(StoreError::from(error).is_outage());
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up_at_the_deadline() {
    let mut bench = Bench::new();
    bench.deadline = Duration::from_millis(100);
    let error = bench.error(Behaviour::Hangs).await;
    let (provider, deadline) = (store_name(), bench.deadline);
    assert_eq!(error, ProviderError::Deadline { provider, deadline });
    assert!(StoreError::from(error).is_outage());
}

#[tokio::test]
async fn a_connection_that_is_cut_is_an_outage_and_the_next_call_makes_a_new_one() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::ClosesConnection);
    let (session, plan) = bench.session().await;
    let cut = error(&session.fetch(&plan).await);
    assert!(matches!(cut, ProviderError::Unavailable { .. }), "{cut}");
    provider.behave(Behaviour::Files(vec![file("a", "x", "1")]));
    assert_eq!(table(&session.fetch(&plan).await).len(), 1);
}

#[tokio::test]
async fn what_does_not_speak_grpc_is_an_outage() {
    let error = Bench::new().error(Behaviour::SpeaksHttp1).await;
    assert!(matches!(error, ProviderError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn each_status_has_its_own_meaning() {
    for (code, beginning) in [
        (Code::Unavailable, "provider aws is unavailable: why"),
        (Code::Aborted, "provider aws is unavailable: why"),
        (Code::ResourceExhausted, "provider aws is at a limit: why"),
        (Code::Unauthenticated, "provider aws can't log in as payments/checkout: why"),
        (Code::PermissionDenied, "provider aws refuses payments/checkout: why"),
        (Code::NotFound, "provider aws does not find what the class asks for: why"),
        (Code::InvalidArgument, "provider aws does not accept the class: why"),
        (Code::FailedPrecondition, "provider aws does not accept the class: why"),
        (Code::Unimplemented, "provider aws does not accept the class: why"),
        (Code::Unknown, "provider aws failed: why"),
        (Code::Internal, "provider aws failed: why"),
    ] {
        let error = Bench::new().error(Behaviour::Refuses(code, "why".to_owned())).await;
        assert!(error.to_string().starts_with(beginning), "{code:?}: {error}");
        let is_refusal = StoreError::from(error).is_refusal();
        assert_eq!(is_refusal, code == Code::PermissionDenied, "{code:?}");
    }
    let late = Bench::new().error(Behaviour::Refuses(Code::DeadlineExceeded, String::new())).await;
    assert!(matches!(late, ProviderError::Deadline { .. }), "{late}");
}

#[tokio::test]
async fn a_message_over_the_size_of_a_provider_in_go_is_said_as_such() {
    let words = "grpc: received message larger than max (5000000 vs. 4194304)".to_owned();
    let error = Bench::new().error(Behaviour::Refuses(Code::ResourceExhausted, words)).await;
    assert_eq!(error, ProviderError::AnswerTooLarge { provider: store_name() });
}

#[tokio::test]
async fn nothing_that_was_sent_comes_back_in_a_message() {
    let bench = Bench::new();
    let _provider = bench.provider(Behaviour::Repeats(Code::Unknown));
    let (session, plan) = bench.session().await;
    let secret = SecretString::new("pw7".to_owned());
    session.take_publish_secrets(PublishSecrets::new(vec![("key".to_owned(), secret)]));
    let message = error(&session.fetch(&plan).await).to_string();
    assert!(message.starts_with("provider aws failed: can't:"), "{message}");
    for sent in [TOKEN_CANARY, jwt("one").expose(), "eyJ", "pw7"] {
        assert!(!message.contains(sent), "{message}");
    }
    let told = "AccessDeniedException: no\n\u{1b}identity".to_owned();
    let message = Bench::new().error(Behaviour::Refuses(Code::Unknown, told)).await.to_string();
    assert_eq!(message, "provider aws failed: AccessDeniedException: no identity");
}
