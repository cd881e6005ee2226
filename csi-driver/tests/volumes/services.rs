//! What kubelet asks about the driver itself, on both sockets.

use sotto_proto::csi::v1::identity_client::IdentityClient;
use sotto_proto::csi::v1::node_client::NodeClient;
use sotto_proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest,
    NodeGetInfoRequest, NodeStageVolumeRequest, ProbeRequest,
};
use sotto_proto::registration::v1::registration_client::RegistrationClient;
use sotto_proto::registration::v1::{InfoRequest, RegistrationStatus};
use tonic::Code;

use crate::machine::Machine;

const REGISTRATION: &str = "kubelet/plugins_registry/csi.sotto.dev-reg.sock";

#[tokio::test(flavor = "multi_thread")]
async fn kubelet_registers_the_driver_by_the_socket_alone() {
    let mut machine = Machine::started().await;
    let channel = machine.connect(REGISTRATION).await;
    let mut registration = RegistrationClient::new(channel.clone());
    let info = registration.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "csi.sotto.dev"));
    assert_eq!((info.endpoint.as_str(), info.supported_versions), ("", vec!["1.0.0".to_owned()]));
    // An empty endpoint means this socket.
    let node = NodeClient::new(channel).node_get_info(NodeGetInfoRequest {}).await.unwrap();
    assert_eq!(node.into_inner().node_id, "node-1");
    let status = RegistrationStatus { plugin_registered: true, error: String::new() };
    registration.notify_registration_status(status).await.unwrap();
    machine.stop().await;
    assert!(!machine.path(REGISTRATION).exists() && !machine.path("csi/csi.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_a_socket_has_not_is_unimplemented() {
    let machine = Machine::started().await;
    let channel = machine.connect("csi/csi.sock").await;
    let mut registration = RegistrationClient::new(channel.clone());
    let refused = registration.get_info(InfoRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    // The connection lives on.
    IdentityClient::new(channel).probe(ProbeRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_sockets_of_an_earlier_process_are_replaced() {
    let mut machine = Machine::new();
    for name in [REGISTRATION, "csi/csi.sock"] {
        drop(std::os::unix::net::UnixListener::bind(machine.path(name)).unwrap());
    }
    machine.start(|_| {}).await;
    machine.connect(REGISTRATION).await;
    machine.connect("csi/csi.sock").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_capabilities_are_those_of_a_node_only_driver() {
    let machine = Machine::started().await;
    let channel = machine.connect("csi/csi.sock").await;
    let mut identity = IdentityClient::new(channel.clone());
    let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "csi.sotto.dev");
    assert!(!info.vendor_version.is_empty());
    let none = identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap();
    assert!(none.into_inner().capabilities.is_empty());
    let ready = identity.probe(ProbeRequest {}).await.unwrap().into_inner().ready;
    assert_eq!(ready, Some(true));
    let mut node = NodeClient::new(channel);
    let capabilities = node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap();
    assert_eq!(capabilities.into_inner().capabilities.len(), 3);
    let stage = node.node_stage_volume(NodeStageVolumeRequest::default()).await.unwrap_err();
    assert_eq!(stage.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exec_probe_tells_a_running_driver_from_none() {
    let machine = Machine::started().await;
    let endpoint = |name| format!("unix://{}", machine.path(name).display());
    sotto_csi::probe::probe(&endpoint("csi/csi.sock")).await.unwrap();
    assert!(sotto_csi::probe::probe(&endpoint("csi/none.sock")).await.is_err());
    assert!(sotto_csi::probe::probe("tcp://127.0.0.1:1").await.is_err());
}
