//! The connection to the API server: where it is, how it is verified, who we are, how long we wait.
//!
//! Invariant: TLS 1.3 with a pinned CA, always; a kubeconfig that turns verification off or names no CA
//! is refused. Making a [`Cluster`] sends nothing, so it works without an API server; each call then
//! fails or is tried again on its own.

mod tls;

use std::path::PathBuf;
use std::time::Duration;

use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::{BoxError, ServiceBuilder};

use crate::api_error::{ApiError, Throttled};
use crate::calls::Call;

/// How long a TCP connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A peer that is silent is probed after this time, and at this interval; three probes lost end the
/// connection, so that a half-open watch is noticed within a minute.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);
const MOST_IDLE: usize = 4;

/// Where the API server's address and our credential come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The pod's environment and its service account's files; token and CA are read again as they change.
    InCluster,
    /// The current context of a kubeconfig file.
    Kubeconfig(PathBuf),
}

/// Why there can be no client. None of them is cured by waiting.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not in a pod, or its service account isn't mounted.
    #[error("not in a pod with a service account: {0}")]
    InCluster(String),
    /// The kubeconfig can't be used.
    #[error("the kubeconfig {path} can't be used: {reason}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// `insecure-skip-tls-verify`.
    #[error("verification of the API server can't be turned off: remove insecure-skip-tls-verify")]
    Unverified,
    /// No CA: the system's trust roots are not a fallback.
    #[error("no certificate authority is named for the API server: add certificate-authority")]
    NoAuthority,
    /// `http://`.
    #[error("the API server's address {0} is not https: pods' tokens are sent to it")]
    Plain(String),
    /// `proxy-url`.
    #[error("a proxy on the way to the API server is not supported: remove proxy-url")]
    Proxy,
    /// The CA or the client certificate can't be read.
    #[error("the certificates for the API server can't be used: {0}")]
    Certificates(String),
    /// The credential can't be read.
    #[error("the credential for the API server can't be used: {0}")]
    Credential(String),
}

/// A handle to the API server; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    address: String,
}

impl Cluster {
    /// Reads the configuration and makes a client; sends nothing.
    ///
    /// # Errors
    /// What in the configuration can't be used.
    pub async fn connect(source: &Source) -> Result<Self, ConnectError> {
        let config = match source {
            Source::InCluster => kube::Config::incluster()
                .map_err(|error| ConnectError::InCluster(crate::text::chain(&error)))?,
            Source::Kubeconfig(path) => from_kubeconfig(path).await?,
        };
        Self::from_config(&config)
    }

    /// The API server's address, for logs.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn from_config(config: &kube::Config) -> Result<Self, ConnectError> {
        let address = config.cluster_url.to_string();
        if config.cluster_url.scheme_str() != Some("https") {
            return Err(ConnectError::Plain(address));
        }
        if config.proxy_url.is_some() {
            return Err(ConnectError::Proxy);
        }
        let https = tls::connector(config, tcp())?;
        let authorization = config
            .auth_layer()
            .map_err(|error| ConnectError::Credential(crate::text::chain(&error)))?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build::<_, Body>(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(authorization)
            .map_err(BoxError::from)
            .map_result(or_throttled)
            .service(http);
        let client = kube::Client::new(service, config.default_namespace.clone());
        Ok(Self { client, address })
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }
}

/// One call within its deadline, its failure told apart.
pub(crate) async fn within<T>(
    call: Call,
    deadline: Duration,
    work: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(answer) => answer.map_err(|error| ApiError::from_kube(call, error)),
        Err(_) => Err(ApiError::Deadline(deadline)),
    }
}

async fn from_kubeconfig(path: &PathBuf) -> Result<kube::Config, ConnectError> {
    let unusable = |error: kube::config::KubeconfigError| ConnectError::Kubeconfig {
        path: path.display().to_string(),
        reason: crate::text::chain(&error),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(unusable)
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp
}

/// `Retry-After` is only in the header when API priority and fairness refuses, and kube drops headers.
fn or_throttled(
    answer: Result<Response<Incoming>, hyper_util::client::legacy::Error>,
) -> Result<Response<Incoming>, BoxError> {
    let answer = answer?;
    let busy =
        matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let asked = answer.headers().get(header::RETRY_AFTER).filter(|_| busy);
    match asked.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()) {
        Some(seconds) => Err(Throttled::for_seconds(seconds).into()),
        None => Ok(answer),
    }
}
