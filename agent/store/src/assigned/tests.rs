use std::collections::BTreeMap;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace, ServiceAccountName, WorkloadIdentity};
use sotto_core::identity::{NodeName, PodName, PodUid};
use sotto_core::limits::Limits;
use tempfile::TempDir;

use super::*;
use crate::config::{ProviderConfig, StoreEntry};
use crate::fake::Pki;
use crate::grammar;

const MAIN: &str = "
name: main
kind: vault
address: https://bao.example:8200
standbys: [https://bao-1.example]
ca: DIR/ca.pem
serverName: bao.internal
clientCertificate: DIR/tls.crt
clientKey: DIR/tls.key
namespace: team-a
auth: { method: METHOD, mount: own-jwt, role: checkout, audience: bao }
allow: { namespaces: [payments] }
";
const PROVIDER: &str =
    "{ name: other, kind: provider, audience: bao, allow: { namespaces: [payments] } }";

fn pod() -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: Namespace::parse("payments").unwrap(),
        pod_name: PodName::parse("web-0").unwrap(),
        pod_uid: PodUid::parse("uid-1").unwrap(),
        service_account: ServiceAccountName::parse("checkout").unwrap(),
        node: NodeName::parse("node-1").unwrap(),
    }
}

fn plan(stores: &Stores, provider: &str) -> VolumePlan {
    let objects = "- {objectName: p, secretPath: secret/data/db, secretKey: p}";
    let parameters = [("objects", objects)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let class = SecretProviderClass {
        namespace: pod().namespace,
        name: ClassName::parse("db").unwrap(),
        provider: provider.to_owned(),
        parameters: BTreeMap::from(parameters),
        wants_secret_objects: false,
    };
    grammar::plan(&class, &pod(), stores, &Limits::default()).unwrap()
}

fn stores(files: &TempDir, method: &str) -> Stores {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pki = Pki::new();
    pki.files(files.path(), &pki.identity());
    let text = MAIN.replace("DIR", &files.path().display().to_string());
    let main: StoreConfig = serde_saphyr::from_str(&text.replace("METHOD", method)).unwrap();
    let other: ProviderConfig = serde_saphyr::from_str(PROVIDER).unwrap();
    let entries = vec![StoreEntry::from(main), StoreEntry::from(other)];
    Stores::open(entries, Some(StoreName::parse("main").unwrap())).ok().unwrap()
}

fn paths(faults: Vec<Fault>) -> Vec<String> {
    faults.into_iter().map(|fault| fault.path).collect()
}

#[test]
fn a_store_arrives_as_it_was_configured_but_for_our_own_certificate() {
    let files = tempfile::tempdir().unwrap();
    let here = stores(&files, "jwt");
    let message = here.assign(&plan(&here, "vault")).unwrap();
    let subject = Subject::from(&pod());
    let there = Stores::assigned(&message, None, &subject).ok().unwrap();
    let (before, after) =
        (here.settings().next().unwrap().clone(), there.settings().next().unwrap().clone());
    assert!(after.tls.client_certificate.is_none() && after.tls.client_key.is_none());
    assert_eq!(after.tls.ca.read().unwrap(), std::fs::read(files.path().join("ca.pem")).unwrap());
    assert!(after.allow.admits(&subject));
    let mut stranger = subject;
    stranger.service_account = ServiceAccountName::parse("other").unwrap();
    assert!(before.allow.admits(&stranger) && !after.allow.admits(&stranger));
    let same = StoreSettings { tls: before.tls.clone(), allow: before.allow.clone(), ..after };
    assert_eq!(same, before);
    assert_eq!(plan(&there, "vault"), plan(&here, "vault"));
}

#[test]
fn a_provider_is_not_given_away() {
    let files = tempfile::tempdir().unwrap();
    let here = stores(&files, "jwt");
    let error = here.assign(&plan(&here, "other")).unwrap_err();
    assert!(error.to_string().contains("node mode"), "{error}");
}

#[test]
fn a_ca_that_is_gone_is_told_and_nothing_is_given() {
    let files = tempfile::tempdir().unwrap();
    let here = stores(&files, "jwt");
    std::fs::write(files.path().join("ca.pem"), "half a certif").unwrap();
    let error = here.assign(&plan(&here, "vault")).unwrap_err();
    assert!(error.to_string().contains("CA of store main"), "{error}");
}

#[test]
fn the_sidecars_own_certificate_is_used_and_required_by_the_method_cert() {
    let files = tempfile::tempdir().unwrap();
    let here = stores(&files, "cert");
    let message = here.assign(&plan(&here, "vault")).unwrap();
    let subject = Subject::from(&pod());
    let faults = Stores::assigned(&message, None, &subject).err().unwrap();
    assert!(faults[0].to_string().contains("needs a client certificate"), "{faults:?}");
    let own = |name: &str| ClientFiles {
        certificate: files.path().join(name),
        key: files.path().join("tls.key"),
    };
    let there = Stores::assigned(&message, Some(&own("tls.crt")), &subject).ok().unwrap();
    assert!(there.settings().next().unwrap().tls.client_key.is_some());
    let missing = Stores::assigned(&message, Some(&own("none")), &subject).err().unwrap();
    assert_eq!(paths(missing), ["clientCertificate"]);
}

#[test]
fn what_comes_is_checked_as_the_configuration_is() {
    let files = tempfile::tempdir().unwrap();
    let here = stores(&files, "jwt");
    let good = here.assign(&plan(&here, "vault")).unwrap();
    type Spoil = fn(&mut AssignedStore);
    let cases: [(Spoil, &str); 8] = [
        (|it| it.address = "http://bao.example".to_owned(), "address"),
        (|it| it.standbys.push("https://x/y".to_owned()), "standbys[1]"),
        (|it| it.ca.clear(), "ca"),
        (|it| it.ca = b"-----BEGIN".to_vec(), "ca"),
        (|it| it.kind = "provider".to_owned(), "kind"),
        (|it| it.auth_method = "none".to_owned(), "auth.method"),
        (|it| it.auth_mount = "../x".to_owned(), "auth.mount"),
        (|it| it.server_name = "a b".to_owned(), "serverName"),
    ];
    for (spoil, path) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let faults = Stores::assigned(&bad, None, &Subject::from(&pod())).err().unwrap();
        assert_eq!(paths(faults), [path]);
    }
}
