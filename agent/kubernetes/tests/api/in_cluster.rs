//! The configuration of a pod: address from the environment, CA and token from the service account's
//! folder, whose path is fixed. So this test runs itself again, with a folder of its own there.

use std::process::Command;

use sotto_core::identity::Audience;
use sotto_core::secret::SecretString;
use sotto_dev::apiserver::FakeApiServer;
use sotto_kubernetes::client::{Cluster, Source};
use sotto_kubernetes::token_review::{ReviewError, TokenReviewer};

use crate::kit::LONG;

const THIS: &str = "in_cluster::in_a_pod_address_ca_and_token_are_those_of_the_pod";
/// Set in the process that plays the pod.
const FILES: &str = "SOTTO_TEST_SERVICE_ACCOUNT";

/// In a mount namespace: an empty `/run` with the files where kubelet puts them.
const AS_POD: &str = r#"
set -eu
mount -t tmpfs tmpfs "$(readlink -f /var/run)"
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
cp "$SOTTO_TEST_SERVICE_ACCOUNT"/* /var/run/secrets/kubernetes.io/serviceaccount/
exec "$@"
"#;

#[tokio::test]
async fn in_a_pod_address_ca_and_token_are_those_of_the_pod() {
    if std::env::var_os(FILES).is_some() {
        return ask_as_pod().await;
    }
    let server = FakeApiServer::start().await.unwrap();
    let files = tempfile::tempdir().unwrap();
    for (name, text) in
        [("ca.crt", server.ca_pem()), ("token", server.bearer()), ("namespace", "sotto-system")]
    {
        std::fs::write(files.path().join(name), text).unwrap();
    }
    let url = server.url();
    let (host, port) = url.trim_start_matches("https://").split_once(':').unwrap();
    // Without root a user namespace gives the right to mount.
    let alone = Command::new("unshare").args(["--mount", "true"]).output().unwrap();
    let mut pod = Command::new("unshare");
    if !alone.status.success() {
        pod.arg("--map-root-user");
    }
    pod.args(["--mount", "sh", "-c", AS_POD, "sh"]).arg(std::env::current_exe().unwrap());
    pod.args(["--exact", THIS]).env(FILES, files.path());
    pod.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    let ended = tokio::task::spawn_blocking(move || pod.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(server.requests_of("create", "tokenreviews").len(), 1, "{said}");
}

async fn ask_as_pod() {
    let cluster = Cluster::connect(&Source::InCluster).await.unwrap();
    let token = SecretString::new("a.pods.token".to_owned());
    let review = TokenReviewer::new(&cluster, LONG);
    let answer = review.review(&token, &Audience::parse("bao").unwrap()).await;
    assert!(matches!(answer, Err(ReviewError::Unauthenticated { .. })), "{answer:?}");
}
