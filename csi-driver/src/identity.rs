//! CSI Identity: what this plugin is.

use std::sync::Arc;

use sotto_proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, ProbeRequest, ProbeResponse, identity_server,
};
use tonic::{Request, Response, Status};

use crate::driver::Driver;

/// The Identity service.
#[derive(Debug, Clone)]
pub struct Identity {
    driver: Arc<Driver>,
    name: String,
}

impl Identity {
    /// The service of this driver under one of its names.
    #[must_use]
    pub fn new(driver: Arc<Driver>, name: &str) -> Self {
        Self { driver, name: name.to_owned() }
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.name.clone(),
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

    /// Ready as soon as it holds every volume that an earlier process held, or has waited for that: until
    /// then a rollout must not go on to the agents. A missing agent alone is no reason, for it is not cured
    /// by a restart of the driver, which holds the mounts.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(self.driver.is_ready()) }))
    }
}
