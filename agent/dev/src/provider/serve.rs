//! The socket and the service behind it.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use http::Request as HttpRequest;
use sotto_proto::provider::v1alpha1::csi_driver_provider_server::{
    CsiDriverProvider, CsiDriverProviderServer,
};
use sotto_proto::provider::v1alpha1::{
    MountRequest, MountResponse, VersionRequest, VersionResponse,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{Behaviour, SeenMount, State, lock};

/// `:authority` on its way to the service.
#[derive(Clone)]
struct Authority(String);

struct Service(Arc<State>);

pub(super) async fn serve(listener: UnixListener, state: Arc<State>) {
    let service = CsiDriverProviderServer::new(Service(Arc::clone(&state)));
    let keep_authority = tower::util::MapRequestLayer::new(with_authority::<tonic::body::Body>);
    let served = Server::builder()
        .layer(keep_authority)
        .add_service(service)
        .serve_with_incoming(connections(listener, state))
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the provider ended");
    }
}

fn with_authority<B>(mut request: HttpRequest<B>) -> HttpRequest<B> {
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    request.extensions_mut().insert(Authority(authority));
    request
}

fn connections(
    listener: UnixListener,
    state: Arc<State>,
) -> impl Stream<Item = io::Result<UnixStream>> {
    futures::stream::unfold((listener, state), |(listener, state)| async move {
        let connection = accept(&listener, &state).await;
        Some((connection, (listener, state)))
    })
}

async fn accept(listener: &UnixListener, state: &State) -> io::Result<UnixStream> {
    loop {
        let (mut connection, _address) = listener.accept().await?;
        if matches!(state.behaviour(), Behaviour::SpeaksHttp1) {
            connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
            continue;
        }
        state.remember(connection.as_fd().try_clone_to_owned()?);
        return Ok(connection);
    }
}

#[tonic::async_trait]
impl CsiDriverProvider for Service {
    async fn version(
        &self,
        _request: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: "v1alpha1".to_owned(),
            runtime_name: "sotto-dev".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn mount(
        &self,
        request: Request<MountRequest>,
    ) -> Result<Response<MountResponse>, Status> {
        let seen = seen(&request)?;
        lock(&self.0.seen).push(seen);
        let behaviour = self.0.behaviour();
        if matches!(behaviour, Behaviour::ClosesConnection) {
            self.0.cut_connections();
        }
        match behaviour.answer(request.get_ref()) {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }
}

fn seen(request: &Request<MountRequest>) -> Result<SeenMount, Status> {
    let message = request.get_ref();
    let not_json = |what: &str| Status::invalid_argument(format!("{what} can't be read"));
    let versions = message.current_object_version.iter();
    Ok(SeenMount {
        authority: request
            .extensions()
            .get::<Authority>()
            .map(|it| it.0.clone())
            .unwrap_or_default(),
        patience: patience(request),
        attributes: serde_json::from_str(&message.attributes)
            .map_err(|_| not_json("attributes"))?,
        secrets: serde_json::from_str(&message.secrets).map_err(|_| not_json("secrets"))?,
        target_path: message.target_path.clone(),
        permission: message.permission.clone(),
        versions: versions.map(|one| (one.id.clone(), one.version.clone())).collect(),
    })
}

/// `grpc-timeout`: a number and a unit.
fn patience(request: &Request<MountRequest>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number.parse().ok()?;
    match unit {
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _other => None,
    }
}
