//! Plugin registration, as kubelet's plugin watcher does it.

use std::path::Path;
use std::time::Duration;

use sotto_proto::csi::v1::node_client::NodeClient;
use sotto_proto::csi::v1::node_service_capability::{Type, rpc};
use sotto_proto::csi::v1::{NodeGetCapabilitiesRequest, NodeGetInfoRequest};
use sotto_proto::registration::v1::registration_client::RegistrationClient;
use sotto_proto::registration::v1::{InfoRequest, PluginInfo, RegistrationStatus};
use tonic::transport::Channel;

use super::error::refused;
use super::{KubeletError, channel, unnamed_host};

const GET_INFO_DEADLINE: Duration = Duration::from_secs(1);
const NOTIFY_DEADLINE: Duration = Duration::from_secs(5);

/// A driver that has registered itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its endpoint; the registration socket where it named none.
    pub socket: std::path::PathBuf,
    /// What NodeGetInfo said.
    pub node_id: String,
    /// Whether the driver sets a volume's group itself.
    pub mount_group: bool,
}

/// Asks the socket that has appeared, in kubelet's order: GetInfo (once as kubelet writes it, once to be read),
/// NodeGetInfo, NotifyRegistrationStatus, NodeGetCapabilities.
pub(super) async fn register(socket: &Path, driver: &str) -> Result<Registered, KubeletError> {
    let unreachable = |_| KubeletError::Unreachable;
    unnamed_host::get_info(socket).await?;
    let channel = channel::connect(socket).await.map_err(unreachable)?;
    let mut registration = RegistrationClient::new(channel.clone());
    let mut ask = tonic::Request::new(InfoRequest {});
    ask.set_timeout(GET_INFO_DEADLINE);
    let info = registration.get_info(ask).await.map_err(refused)?.into_inner();
    let accepted = accept(&info, driver);
    let socket = match info.endpoint.as_str() {
        "" => socket.to_owned(),
        endpoint => endpoint.into(),
    };
    let mut node = NodeClient::new(channel::connect(&socket).await.map_err(unreachable)?);
    let node_id = match accepted {
        Ok(()) => node.node_get_info(NodeGetInfoRequest {}).await.map_err(refused)?.into_inner(),
        Err(error) => {
            notify(&mut registration, false, &error).await?;
            return Err(KubeletError::NotRegistered(error));
        }
    };
    notify(&mut registration, true, "").await?;
    let mount_group = sets_group(&mut node).await?;
    Ok(Registered { socket, node_id: node_id.node_id, mount_group })
}

fn accept(info: &PluginInfo, driver: &str) -> Result<(), String> {
    if info.r#type != "CSIPlugin" {
        return Err(format!("{:?} is no kind of plugin that kubelet knows", info.r#type));
    }
    if info.name != driver {
        return Err(format!("the driver calls itself {:?}, not {driver:?}", info.name));
    }
    if !info.supported_versions.iter().any(|version| version.starts_with("1.")) {
        return Err(format!("no version of CSI 1 among {:?}", info.supported_versions));
    }
    Ok(())
}

async fn notify(
    registration: &mut RegistrationClient<Channel>,
    plugin_registered: bool,
    error: &str,
) -> Result<(), KubeletError> {
    let status = RegistrationStatus { plugin_registered, error: error.to_owned() };
    let mut status = tonic::Request::new(status);
    status.set_timeout(NOTIFY_DEADLINE);
    registration.notify_registration_status(status).await.map_err(refused)?;
    Ok(())
}

async fn sets_group(node: &mut NodeClient<Channel>) -> Result<bool, KubeletError> {
    let answer =
        node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.map_err(refused)?;
    let wanted = i32::from(rpc::Type::VolumeMountGroup);
    Ok(answer.into_inner().capabilities.iter().any(|capability| match &capability.r#type {
        Some(Type::Rpc(rpc)) => rpc.r#type == wanted,
        None => false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_of_another_kind_name_or_version_is_refused() {
        let info = |kind: &str, name: &str, version: &str| PluginInfo {
            r#type: kind.to_owned(),
            name: name.to_owned(),
            endpoint: String::new(),
            supported_versions: vec![version.to_owned()],
        };
        assert_eq!(accept(&info("CSIPlugin", "d", "1.0.0"), "d"), Ok(()));
        for wrong in [
            info("Device", "d", "1.0.0"),
            info("CSIPlugin", "e", "1.0.0"),
            info("CSIPlugin", "d", "0.3"),
        ] {
            assert!(accept(&wrong, "d").is_err());
        }
    }
}
