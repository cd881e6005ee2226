//! CSI Node: requests are checked, then worked on by tasks of their own.
//!
//! Invariant: a caller that goes away (kubelet restarts, its deadline passes) never stops a publish or an
//! unpublish half-way: its task is owned by the driver and runs to its end.

pub mod checks;
mod stats;
mod status;

use std::sync::Arc;

use sotto_proto::csi::v1::node_service_capability::{Rpc, Type, rpc};
use sotto_proto::csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, node_server,
};
use sotto_runtime::metrics::Call;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::driver::Driver;
use crate::node::checks::Injected;
use crate::sidecar::handoff;
use crate::volume::Mode;
use crate::{publish, unpublish};

const CAPABILITIES: [rpc::Type; 3] =
    [rpc::Type::VolumeMountGroup, rpc::Type::GetVolumeStats, rpc::Type::VolumeCondition];

/// The Node service.
#[derive(Debug, Clone)]
pub struct Node {
    driver: Arc<Driver>,
    mode: Mode,
}

impl Node {
    /// The service of the driver whose volumes are served so.
    #[must_use]
    pub fn new(driver: Arc<Driver>, mode: Mode) -> Self {
        Self { driver, mode }
    }

    fn counted(&self, method: &'static str, done: Result<(), Status>) -> Result<(), Status> {
        let code = done.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        let call = Call { method, code: status::name(code) };
        self.driver.metrics.calls.get_or_create(&call).inc();
        done
    }

    /// Runs `work` to its end, whether or not the caller stays.
    async fn to_the_end<E>(
        &self,
        span: tracing::Span,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Result<(), Status>
    where
        Status: From<E>,
        E: std::error::Error + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.driver.calls.spawn(
            async move {
                let done = work.await;
                if let Err(error) = &done {
                    tracing::warn!(%error, "refused");
                }
                // The caller may be gone.
                let _ = sender.send(done);
            }
            .instrument(span),
        );
        let done =
            receiver.await.map_err(|_| Status::internal("the driver failed: see its log"))?;
        done.map_err(Status::from)
    }
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let published = async {
            let (request, driver) = (request.into_inner(), Arc::clone(&self.driver));
            let request = match self.mode {
                Mode::Node => Injected::Secrets(checks::publish(request, &driver)?),
                Mode::Sidecar => checks::injected(request, &driver)?,
            };
            match request {
                Injected::Secrets(request) => {
                    let span = tracing::info_span!("publish", volume = %request.id);
                    let work = async move { publish::publish(&driver, request).await };
                    self.to_the_end(span, work).await
                }
                Injected::Handoff(request) => {
                    let span = tracing::info_span!("publish_handoff", volume = %request.id);
                    let work = async move { handoff::publish(&driver, request).await };
                    self.to_the_end(span, work).await
                }
            }
        };
        self.counted("NodePublishVolume", published.await)?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let unpublished = async {
            let (id, target) = checks::unpublish(&request.into_inner(), &self.driver)?;
            let span = tracing::info_span!("unpublish", volume = %id);
            let driver = Arc::clone(&self.driver);
            let mode = self.mode;
            let work = async move {
                if mode == Mode::Sidecar && handoff::is_one(&driver, &id, &target).await? {
                    return handoff::unpublish(&driver, id, target).await;
                }
                unpublish::unpublish(&driver, id, target).await
            };
            self.to_the_end(span, work).await
        };
        self.counted("NodeUnpublishVolume", unpublished.await)?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        if self.mode == Mode::Sidecar && checks::is_handoff(&request, &self.driver) {
            return Ok(Response::new(stats::of_handoff()));
        }
        let volume = checks::stats(&request, &self.driver)?;
        Ok(Response::new(stats::of(&volume)))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        };
        let capabilities = CAPABILITIES.map(capability).into();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.driver.settings.node_name.as_str().to_owned(),
            max_volumes_per_node: 0, // the scheduler doesn't count inline volumes
            accessible_topology: None,
        }))
    }

    async fn node_stage_volume(
        &self,
        _: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        Err(Status::unimplemented("inline volumes are not staged"))
    }

    async fn node_unstage_volume(
        &self,
        _: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        Err(Status::unimplemented("inline volumes are not staged"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented("a volume has the size of its secrets"))
    }
}
