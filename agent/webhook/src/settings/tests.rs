//! The settings: defaults, and every fault at once.

use super::*;

const LEAST: &str = "agent: { image: registry.example/agent:1 }\ntoken: { audience: bao }\n";

fn paths(text: &str) -> Vec<String> {
    Settings::parse(text).unwrap_err().0.into_iter().map(|fault| fault.path).collect()
}

#[test]
fn image_and_audience_are_enough() {
    let settings = Settings::parse(LEAST).unwrap();
    assert_eq!(settings.image, "registry.example/agent:1");
    assert_eq!(settings.audience.as_str(), "bao");
    assert_eq!(settings.cpu.request.to_string(), "10m");
    assert_eq!(settings.memory.limit.to_string(), "64Mi");
    assert!(settings.skip_containers.iter().any(|name| name == "istio-proxy"));
    assert_eq!(settings.client_certificate, None);
}

#[test]
fn the_settings_of_the_manifests_can_be_used() {
    let file =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/components/injection/config.yaml");
    Settings::load(Path::new(file)).unwrap();
}

#[test]
fn every_fault_is_told_at_once_with_its_path() {
    let found = paths(
        "agent:\n  image: 5\n  imagePullPolicy: Sometimes\n  cpu: { request: 2, most: 1, least: 1 }\n  \
         memory: { limit: lots }\n  clientCertificate: { hostPath: { path: / } }\n  command: [sh]\n\
         token: { audience: \"\" }\nskipContainers: istio\nstore: x\n",
    );
    let expected = [
        "skipContainers",
        "agent.image",
        "agent.imagePullPolicy",
        "token.audience",
        "agent.cpu.least",
        "agent.cpu.request",
        "agent.memory.limit",
        "agent.clientCertificate",
        "agent.command",
        "store",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_has_no_default_must_be_there() {
    assert_eq!(paths(""), ["agent.image", "token.audience"]);
    assert_eq!(paths("[]"), ["", "agent.image", "token.audience"]);
    assert!(paths("a: 1\na: 2").contains(&String::new()));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Settings::load(Path::new("/nowhere/config.yaml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/config.yaml"));
}
