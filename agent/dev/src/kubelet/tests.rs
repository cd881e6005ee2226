mod sidecar;

use std::time::SystemTime;

use serde_json::{Value, json};

use sotto_core::clock::SystemClock;

use super::*;
use crate::issuer::{Algorithm, DEMO_ISSUER, Issuer};

const EXAMPLE: &str = include_str!("../../../../deploy/examples/payments.yaml");
const DRIVER: &str = include_str!("../../../../deploy/base/csidriver.yaml");
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

fn kubelet(place: TokenPlace, clock: Arc<dyn Clock>) -> (Kubelet, Pod, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = CsiDriver::parse(DRIVER).unwrap();
    driver.tokens = place;
    let issuer = Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256]).unwrap();
    let at = folder.path().to_owned();
    let settings = KubeletSettings::new(at.clone(), at.join("csi.sock"), "node-1", driver, issuer);
    let kubelet = Kubelet::new(KubeletSettings { clock, ..settings });
    (kubelet, Pod::parse(EXAMPLE).unwrap(), folder)
}

#[test]
fn the_example_and_the_drivers_object_are_read_as_kubernetes_reads_them() {
    let pod = Pod::parse(EXAMPLE).unwrap();
    assert_eq!((pod.namespace.as_str(), pod.service_account.as_str()), ("payments", "checkout"));
    assert_eq!((pod.run_as_user, pod.fs_group), (Some(1000), Some(2000)));
    let [volume] = pod.volumes.as_slice() else { panic!("one CSI volume") };
    assert_eq!((volume.driver.as_str(), volume.read_only), ("csi.sotto.dev", true));
    let driver = CsiDriver::parse(DRIVER).unwrap();
    assert_eq!(driver.name, volume.driver);
    assert_eq!(driver.token_requests, [("bao".to_owned(), Duration::from_secs(600))]);
    assert!(driver.requires_republish && driver.pod_info_on_mount);
    assert_eq!(driver.tokens, TokenPlace::Secrets);
}

/// The request that was seen from a real kubelet, in `facts/kubelet-csi.md`.
#[test]
fn a_request_is_the_one_that_a_real_kubelet_sends() {
    let (kubelet, pod, folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let request = kubelet.request(&pod, &pod.volumes[0]);
    assert_eq!(request.volume_id.len(), "csi-".len() + 64);
    let target = format!(
        "{}/pods/{}/volumes/kubernetes.io~csi/secrets/mount",
        folder.path().display(),
        pod.uid
    );
    assert_eq!(request.target_path, target);
    assert_eq!(request.staging_target_path, "");
    assert!(request.publish_context.is_empty() && request.readonly);
    let context = json!({
        "csi.storage.k8s.io/ephemeral": "true",
        "csi.storage.k8s.io/pod.name": "checkout-0",
        "csi.storage.k8s.io/pod.namespace": "payments",
        "csi.storage.k8s.io/pod.uid": pod.uid,
        "csi.storage.k8s.io/serviceAccount.name": "checkout",
        "secretProviderClass": "payments-db",
    });
    assert_eq!(json!(request.volume_context), context);
    let capability = request.volume_capability.unwrap();
    assert_eq!(capability.access_mode.unwrap().mode, 1);
    let tokens: Value = serde_json::from_str(&request.secrets[TOKENS]).unwrap();
    let keys: Vec<_> = tokens["bao"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["expirationTimestamp", "token"]);
    assert!(tokens["bao"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn the_group_of_the_pod_is_the_volumes_mount_group() {
    use sotto_proto::csi::v1::volume_capability::AccessType;
    let (kubelet, pod, _folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let capability = kubelet.request(&pod, &pod.volumes[0]).volume_capability.unwrap();
    let Some(AccessType::Mount(mount)) = capability.access_type else { panic!("a mount") };
    assert_eq!(mount.volume_mount_group, "2000");
    assert!(mount.fs_type.is_empty() && mount.mount_flags.is_empty());
}

#[test]
fn tokens_travel_where_the_driver_says() {
    let (kubelet, pod, _folder) = kubelet(TokenPlace::VolumeContext, Arc::new(SystemClock));
    let request = kubelet.request(&pod, &pod.volumes[0]);
    assert!(request.volume_context.contains_key(TOKENS) && request.secrets.is_empty());
}

#[test]
fn a_token_is_sent_again_until_four_fifths_of_its_life() {
    let start = SystemTime::now();
    let hand = Arc::new(HandClock::at(start));
    let clock: Arc<dyn Clock> = hand.clone();
    let (kubelet, pod, _folder) = kubelet(TokenPlace::Secrets, clock);
    let token = || kubelet.request(&pod, &pod.volumes[0]).secrets[TOKENS].clone();
    let first = token();
    hand.set(start + Duration::from_secs(479));
    assert!(token() == first, "not yet");
    hand.set(start + Duration::from_secs(481));
    assert!(token() != first, "refreshed");
}

#[tokio::test]
async fn a_driver_that_is_not_there_leaves_the_volume_to_be_unpublished() {
    let (kubelet, pod, folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let error = kubelet.publish(&pod, &pod.volumes[0]).await.unwrap_err();
    assert!(error.is_uncertain());
    let volume = folder.path().join(format!("pods/{}/volumes/kubernetes.io~csi/secrets", pod.uid));
    assert!(volume.join("vol_data.json").exists());
    assert!(!volume.join("mount").exists(), "the target is the driver's");
}

#[test]
fn directories_go_as_they_came() {
    let (kubelet, pod, folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let volume = &pod.volumes[0];
    let directories = Directories::new(&kubelet.settings.directory, &pod, volume);
    directories.create("node-1", &pod, volume).unwrap();
    assert!(!directories.has_target().unwrap());
    std::fs::create_dir(directories.target()).unwrap();
    assert!(directories.has_target().unwrap());
    std::fs::remove_dir(directories.target()).unwrap();
    directories.remove().unwrap();
    assert!(!folder.path().join("pods").join(&pod.uid).exists());
    directories.remove().unwrap();
}

#[test]
fn a_csidriver_that_was_changed_is_what_the_next_request_is_built_from() {
    let (kubelet, pod, _folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let before = kubelet.request(&pod, &pod.volumes[0]).secrets[TOKENS].clone();
    let older = DRIVER.replace("serviceAccountTokenInSecrets: true", "");
    kubelet.apply(CsiDriver::parse(&older).unwrap());
    let request = kubelet.request(&pod, &pod.volumes[0]);
    assert!(request.secrets.is_empty(), "as before Kubernetes 1.35");
    assert_eq!(request.volume_context[TOKENS], before, "the same token at another place");
}

#[test]
fn a_restart_finds_the_volumes_by_what_is_on_disk() {
    let (kubelet, pod, folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    assert!(directories::volumes(folder.path()).unwrap().is_empty());
    let volume = &pod.volumes[0];
    let directories = Directories::new(&kubelet.settings.directory, &pod, volume);
    directories.create("node-1", &pod, volume).unwrap();
    let found = directories::volumes(folder.path()).unwrap();
    assert_eq!(found, [volume_id(&pod, volume)].into());
}

#[tokio::test]
async fn an_inline_volume_needs_a_driver_that_offers_it() {
    let (kubelet, pod, _folder) = kubelet(TokenPlace::Secrets, Arc::new(SystemClock));
    let mut driver = CsiDriver::parse(DRIVER).unwrap();
    assert!(driver.is_ephemeral);
    driver.is_ephemeral = false;
    kubelet.apply(driver);
    let error = kubelet.publish(&pod, &pod.volumes[0]).await.unwrap_err();
    assert!(matches!(error, KubeletError::NotOffered(_)) && kubelet.calls().is_empty());
}

#[test]
fn an_event_is_worded_as_kubelets() {
    let refused = tonic::Status::not_found("no such secret");
    assert_eq!(
        error::refused(refused).event("secrets"),
        "MountVolume.SetUp failed for volume \"secrets\" : rpc error: code = NotFound desc = no such secret"
    );
}
