//! A pod that the webhook has made, as a kubelet reads it.

use super::*;

const INJECTED: &str = include_str!("../../../../webhook/tests/pods/expected/deployment.yaml");
const SIDECAR_DRIVER: &str =
    include_str!("../../../../../deploy/components/injection/csidriver.yaml");

#[test]
fn the_sidecar_of_a_deployments_pod_is_read_with_its_token_and_its_probe() {
    let pod = Pod::parse(INJECTED).unwrap();
    assert!(pod.name.starts_with("checkout-"), "{}", pod.name);
    let names: Vec<_> = pod.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["sotto-secrets", "sotto-handoff"]);
    let sidecar = pod.sidecar.unwrap();
    assert_eq!((sidecar.command.as_str(), sidecar.user), ("/sotto-agent", (65532, 65532)));
    assert_eq!((sidecar.token.audience.as_str(), sidecar.token.path.as_str()), ("bao", "token"));
    assert_eq!((sidecar.token.life, sidecar.probe_period.as_secs()), (Duration::from_secs(600), 1));
    assert_eq!(sidecar.probe, ["probe"]);
    let paths: Vec<_> = sidecar.mounts.iter().map(|mount| mount.mount_path.as_str()).collect();
    assert_eq!(paths, ["/run/sotto", "/var/run/secrets/kubernetes.io/serviceaccount"]);
}

/// The whole point of the second driver name, by the manifest that a cluster gets.
#[test]
fn no_token_is_sent_for_a_volume_of_an_injected_pod() {
    let (kubelet, node_mode, folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let mut settings = kubelet.settings;
    settings.more_drivers = vec![CsiDriver::parse(SIDECAR_DRIVER).unwrap()];
    let kubelet = Kubelet::new(settings);
    let pod = Pod::parse(INJECTED).unwrap();
    for volume in &pod.volumes {
        let request = kubelet.request(&pod, volume);
        assert!(request.secrets.is_empty() && !request.volume_context.contains_key(TOKENS));
        assert_eq!(request.volume_context["csi.storage.k8s.io/pod.uid"], pod.uid);
    }
    // Beside it the other driver's volumes carry it as ever.
    assert!(kubelet.request(&node_mode, &node_mode.volumes[0]).secrets.contains_key(TOKENS));
    drop(folder);
}

#[tokio::test]
async fn each_volume_goes_to_its_own_driver() {
    let (kubelet, _, _folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let pod = Pod::parse(INJECTED).unwrap();
    let error = kubelet.publish(&pod, &pod.volumes[0]).await.unwrap_err();
    assert!(error.to_string().contains("is for driver sidecar.csi.sotto.dev"), "{error}");
    assert!(kubelet.calls().is_empty());
}
