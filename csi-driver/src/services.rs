//! The gRPC services of one unix socket, and its connections.
//!
//! On hyper's HTTP/2 alone: tonic's own server would bring HTTP/1, a router and its layers, a tenth of this binary.
//!
//! Invariant: each connection is a task of the drain; when that begins, it takes no new call and ends with its last one.
//! At most [`MAX_CALLS`] calls of one connection are worked on at one time.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sotto_proto::csi::v1::identity_server::IdentityServer;
use sotto_proto::csi::v1::node_server::NodeServer;
use sotto_proto::registration::v1::registration_server::RegistrationServer;
use sotto_runtime::drain::Drain;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service as _, http};
use tonic::server::NamedService;

use crate::driver::Driver;
use crate::identity::Identity;
use crate::node::Node;
use crate::registration::Registration;
use crate::socket::authority::AnyAuthority;
use crate::volume::Mode;

/// Calls of one connection that are worked on at one time.
const MAX_CALLS: u32 = 128;
/// Largest request: kubelet's tokens are most of it.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What one socket offers; cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    node: NodeServer<Node>,
    identity: IdentityServer<Identity>,
    registration: Option<RegistrationServer<Registration>>,
}

impl Services {
    /// CSI's Identity and Node under a driver's name.
    pub(crate) fn new(driver: &Arc<Driver>, name: &str, mode: Mode) -> Self {
        let node = NodeServer::new(Node::new(Arc::clone(driver), mode));
        let identity = IdentityServer::new(Identity::new(Arc::clone(driver), name));
        let node = node.max_decoding_message_size(MAX_REQUEST_BYTES);
        Self { node, identity, registration: None }
    }

    /// With kubelet's registration of plugins.
    pub(crate) fn with_registration(self, registration: Registration) -> Self {
        Self { registration: Some(RegistrationServer::new(registration)), ..self }
    }

    /// Serves these connections until the drain begins.
    pub(crate) async fn serve(
        self,
        connections: impl Stream<Item = io::Result<AnyAuthority<UnixStream>>>,
        drain: Drain,
    ) {
        let mut connections = pin!(connections);
        loop {
            let connection = tokio::select! {
                connection = connections.next() => connection,
                () = drain.begun() => return,
            };
            match connection {
                Some(Ok(connection)) => {
                    drain.spawn(self.clone().attend(connection, drain.clone()));
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "a connection to a CSI socket can't be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => return,
            }
        }
    }

    async fn attend(self, connection: AnyAuthority<UnixStream>, drain: Drain) {
        let service = service_fn(move |request| self.call(request));
        let mut protocol = http2::Builder::new(TokioExecutor::new());
        protocol.max_concurrent_streams(MAX_CALLS);
        let mut served = pin!(protocol.serve_connection(TokioIo::new(connection), service));
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = drain.begun() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to a CSI socket ended");
        }
    }

    fn call(
        &self,
        request: http::Request<Incoming>,
    ) -> BoxFuture<http::Response<Body>, Infallible> {
        // "/csi.v1.Node/NodePublishVolume"
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        if service == NodeServer::<Node>::NAME {
            return self.node.clone().call(request);
        }
        if service == IdentityServer::<Identity>::NAME {
            return self.identity.clone().call(request);
        }
        match &self.registration {
            Some(registration) if service == RegistrationServer::<Registration>::NAME => {
                registration.clone().call(request)
            }
            Some(_) | None => {
                let status = Status::unimplemented("this socket has no such service");
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
