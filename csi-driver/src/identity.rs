//! CSI Identity: what this plugin is.

use sotto_proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, ProbeRequest, ProbeResponse, identity_server,
};
use tonic::{Request, Response, Status};

/// The Identity service.
#[derive(Debug, Clone)]
pub struct Identity {
    driver_name: String,
}

impl Identity {
    /// The service of the driver with this name.
    #[must_use]
    pub fn new(driver_name: &str) -> Self {
        Self { driver_name: driver_name.to_owned() }
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: [].into(),
        }))
    }

    /// None: there is no controller service, and a node's volumes are reachable there only.
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities: [].into() }))
    }

    /// Ready as soon as it answers: a missing agent is not cured by a restart of the driver, which holds
    /// the mounts.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
