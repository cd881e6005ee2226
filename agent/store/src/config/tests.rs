use sotto_core::identity::{Namespace, ServiceAccountName};

use super::*;
use crate::plan::Subject;

const GOOD: &str = r#"
name: main
kind: openbao
address: https://bao.example:8200
standbys: [https://bao-1.example:8200]
ca: /etc/sotto/tls/ca.pem
serverName: bao.example
clientCertificate: /etc/sotto/tls/tls.crt
clientKey: /etc/sotto/tls/tls.key
namespace: team-a
auth: { method: jwt, mount: /jwt/, audience: bao }
allow: { namespaces: ["payments"], serviceAccounts: ["shop/web"] }
"#;

fn parse(text: &str) -> StoreConfig {
    serde_saphyr::from_str(text).unwrap()
}

fn subject(namespace: &str, name: &str) -> Subject {
    Subject {
        namespace: Namespace::parse(namespace).unwrap(),
        service_account: ServiceAccountName::parse(name).unwrap(),
    }
}

fn paths(config: &StoreConfig) -> Vec<String> {
    config.validate().into_iter().map(|fault| fault.path).collect()
}

#[test]
fn a_whole_store_is_accepted() {
    let settings = parse(GOOD).check().unwrap();
    assert_eq!(settings.mount, "jwt");
    assert_eq!(settings.address.to_string(), "https://bao.example:8200");
    assert_eq!(settings.standbys.len(), 1);
    assert!(settings.allow.admits(&subject("payments", "anything")));
    assert!(settings.allow.admits(&subject("shop", "web")));
    assert!(!settings.allow.admits(&subject("shop", "other")));
    assert!(!settings.allow.admits(&subject("web", "shop")));
}

#[test]
fn every_fault_is_found_at_once() {
    let config = parse(
        r#"
name: Main
kind: vault
address: http://bao.example:8200
standbys: [https://ok.example, "https://bad.example/path"]
ca: /ca.pem
clientKey: /tls.key
namespace: "a//b"
auth: { method: kubernetes, mount: "../x", audience: "a b" }
allow: { namespaces: ["Bad"], serviceAccounts: ["no-slash"] }
"#,
    );
    assert_eq!(
        paths(&config),
        [
            "name",
            "address",
            "standbys[1]",
            "clientCertificate",
            "namespace",
            "auth.mount",
            "auth.audience",
            "allow.namespaces[0]",
            "allow.serviceAccounts[0]",
        ]
    );
}

#[test]
fn a_store_that_nobody_may_use_is_a_fault() {
    let mut config = parse(GOOD);
    config.allow = AllowConfig::default();
    assert_eq!(paths(&config), ["allow"]);
}

#[test]
fn the_cert_method_needs_a_certificate_and_a_list_of_namespaces() {
    let mut config = parse(GOOD);
    config.auth.method = AuthMethod::Cert;
    assert!(config.validate().is_empty());
    config.allow.namespaces.push("*".to_owned());
    config.client_certificate = None;
    config.client_key = None;
    assert_eq!(paths(&config), ["clientCertificate", "allow.namespaces[1]"]);
}

#[test]
fn all_namespaces_can_be_allowed_by_name_only() {
    let mut config = parse(GOOD);
    config.allow.namespaces = vec!["*".to_owned()];
    assert!(config.check().unwrap().allow.admits(&subject("any", "body")));
}

#[test]
fn no_key_turns_verification_off() {
    for key in ["skipTLSVerify: true", "insecure: true", "tlsSkipVerify: true", "verify: false"] {
        let text = format!("{GOOD}{key}\n");
        let error = serde_saphyr::from_str::<StoreConfig>(&text).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn allow_and_the_ca_are_required() {
    for key in ["allow:", "ca:", "auth:"] {
        let text: String = GOOD
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(serde_saphyr::from_str::<StoreConfig>(&text).is_err(), "{key}");
    }
}

#[test]
fn a_fault_tells_its_place_from_outside() {
    let fault = Fault::new("address", "wrong").within("stores[2]");
    assert_eq!(fault.to_string(), "stores[2].address: wrong");
}
