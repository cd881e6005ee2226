//! Registration with kubelet, without a sidecar container.
//!
//! kubelet watches its `plugins_registry`; a socket that appears there is asked for the plugin behind it,
//! also after kubelet's own restart. The endpoint is left empty, which means this same socket, so that the
//! path by which kubelet sees the driver's other socket need not be known; it serves Identity and Node too.

use std::path::{Path, PathBuf};

use sotto_proto::registration::v1::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};
use tonic::{Request, Response, Status};

/// What kubelet knows as a CSI driver.
const PLUGIN_TYPE: &str = "CSIPlugin";
/// Versions of CSI.
const SUPPORTED_VERSIONS: [&str; 1] = ["1.0.0"];

/// The Registration service.
#[derive(Debug, Clone)]
pub struct Registration {
    driver_name: String,
}

impl Registration {
    /// The service of the driver with this name.
    #[must_use]
    pub fn new(driver_name: &str) -> Self {
        Self { driver_name: driver_name.to_owned() }
    }
}

/// Where the driver's registration socket lies in kubelet's directory.
#[must_use]
pub fn socket_path(directory: &Path, driver_name: &str) -> PathBuf {
    directory.join(format!("{driver_name}-reg.sock"))
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: self.driver_name.clone(),
            endpoint: String::new(),
            supported_versions: SUPPORTED_VERSIONS.map(str::to_owned).into(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        if plugin_registered {
            tracing::info!(driver = self.driver_name, "kubelet registered the driver");
        } else {
            tracing::error!(driver = self.driver_name, error, "kubelet refused to register it");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
