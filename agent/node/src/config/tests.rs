use super::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use sotto_kubernetes::client::Source;
use tempfile::TempDir;

/// A directory with every file that a configuration names.
fn files() -> TempDir {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["bao.example".to_owned()]).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("ca.pem", &cert.pem());
    write("tls.crt", &cert.pem());
    write("tls.key", &signing_key.serialize_pem());
    write("jwks.json", r#"{"keys":[]}"#);
    std::fs::create_dir(directory.path().join("classes")).unwrap();
    directory
}

const GOOD: &str = r#"
stores:
  - name: main
    kind: openbao
    address: https://bao.example:8200
    standbys: [https://bao-1.example:8200]
    ca: DIR/ca.pem
    clientCertificate: DIR/tls.crt
    clientKey: DIR/tls.key
    auth: { method: jwt, mount: jwt, audience: bao }
    allow: { namespaces: ["payments"], serviceAccounts: ["shop/web"] }
defaults: { store: main }
limits: { objectBytes: 1024, volumes: 7 }
tokens:
  issuer: https://kubernetes.default.svc.cluster.local
  jwks: { file: DIR/jwks.json }
  leeway: 5s
classes: { directory: DIR/classes }
audit: { file: DIR/audit.log }
driver: { socket: /run/sotto/node.sock, uid: 3 }
"#;

fn parse(directory: &TempDir, text: &str) -> Result<Config, Vec<String>> {
    let text = text.replace("DIR", &directory.path().display().to_string());
    Config::parse(&text, Mode::Production)
        .map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
}

fn faults(text: &str) -> Vec<String> {
    match parse(&files(), text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults,
    }
}

#[test]
fn reviews_are_wanted_by_stores_that_exist_and_need_an_api_server() {
    let review = |list: &str| format!("leeway: 5s\n  review: {list}");
    let without_directory = GOOD
        .replace("classes: { directory: DIR/classes }", "kubernetes: { kubeconfig: DIR/ca.pem }");
    let of_cluster = |list: &str| without_directory.replacen("leeway: 5s", &review(list), 1);
    let config = parse(&files(), &of_cluster("[main]")).ok().unwrap();
    assert_eq!(config.tokens.review.len(), 1);
    let unknown = faults(&of_cluster("[main, other]"));
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0].starts_with("tokens.review: no store is named other"), "{unknown:?}");
    let malformed = faults(&of_cluster("[\"a b\"]"));
    assert!(malformed[0].starts_with("tokens.review[0]: "), "{malformed:?}");
    let alone = faults_with("leeway: 5s", &review("[main]"));
    assert!(alone[0].contains("reviews need an API server"), "{alone:?}");
}

/// The faults of the good configuration after one replacement.
fn faults_with(old: &str, new: &str) -> Vec<String> {
    assert!(GOOD.contains(old), "{old}");
    faults(&GOOD.replacen(old, new, 1))
}

#[track_caller]
fn one_fault(old: &str, new: &str, path: &str, words: &str) {
    let found = faults_with(old, new);
    let [fault] = found.as_slice() else { panic!("not one fault: {found:#?}") };
    assert!(fault.starts_with(&format!("{path}: ")) && fault.contains(words), "{fault}");
}

#[test]
fn a_good_file_is_read_with_its_defaults() {
    let directory = files();
    let config = parse(&directory, GOOD).ok().unwrap();
    assert_eq!(config.stores.names().count(), 1);
    assert_eq!((config.limits.object_bytes, config.limits.volumes), (1024, 7));
    assert_eq!(config.limits.objects, Limits::default().objects);
    assert_eq!(config.tokens.leeway, std::time::Duration::from_secs(5));
    assert_eq!(config.driver.uid, 3);
    assert!(directory.path().join("audit.log").exists());
    let short = GOOD.split("audit:").next().unwrap();
    let config = parse(&directory, short).ok().unwrap();
    assert!(matches!(config.audit, AuditOutput::Stdout));
    let unaudited = format!("{short}audit: {{ output: none }}\n");
    let config = parse(&directory, &unaudited).ok().unwrap();
    assert!(matches!(config.audit, AuditOutput::None));
    let config = parse(&directory, short).ok().unwrap();
    assert_eq!(config.driver.socket, Path::new("/run/sotto/node.sock"));
}

#[test]
fn every_fault_of_a_file_is_found_at_once() {
    let found = faults(
        r#"
stores:
  - name: Main
    kind: keywhiz
    address: http://bao.example
    adress: https://bao.example
    verify: false
    ca: DIR/none.pem
    auth: { methd: jwt, mount: 7 }
  - kind: vault
    address: https://bao.example:8200
    ca: DIR/ca.pem
    auth: { method: jwt, audience: bao }
    allow: { namespaces: "*" }
limits: { objectBytes: many, volumes: 0, objekts: 1 }
tokens: { issuer: "", jwks: { fil: DIR/jwks.json }, leeway: 1h, extra: 1 }
audit: { output: stderr }
driver: { uid: root, socket: node.sock }
colour: blue
"#,
    );
    for wanted in [
        "colour: unknown key",
        "stores[0].kind: unknown variant",
        "stores[0].adress: unknown field",
        "stores[0].verify: unknown field",
        "stores[0].auth.method: missing",
        "stores[0].auth.audience: missing",
        "stores[0].auth.methd: unknown field",
        "stores[0].auth.mount: invalid type",
        "stores[0].allow: missing",
        "stores[1].name: missing",
        "stores[1].allow.namespaces: invalid type",
        "limits.objectBytes: invalid type",
        "limits.objekts: unknown field",
        "tokens.jwks.fil: unknown field",
        "tokens.extra: unknown field",
        "audit.output: unknown variant",
        "driver.uid: invalid type",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {found:#?}");
    }
    assert_eq!(found.len(), 17, "said twice, or one too many: {found:#?}");
}

#[test]
fn values_are_checked_together_once_the_keys_are_right() {
    let text = GOOD
        .replace("https://bao.example:8200", "http://bao.example")
        .replace("audience: bao", "audience: 'b a o'")
        .replace("volumes: 7", "volumes: 0")
        .replace("leeway: 5s", "leeway: 1h")
        .replace(
            "tokens:\n  issuer: https://kubernetes.default.svc.cluster.local",
            "tokens:\n  issuer: ''",
        );
    let found = faults(&text);
    for wanted in [
        "stores[0].address",
        "stores[0].auth.audience",
        "limits.volumes",
        "tokens.leeway",
        "tokens.issuer",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn one_store_that_cannot_be_read_hides_no_fault_of_another() {
    let second = "  - { name: two, kind: vault, address: nowhere, ca: DIR/ca.pem, auth: { method: jwt, audience: a }, allow: { namespaces: [x] } }\ndefaults:";
    let text = GOOD.replace("    kind: openbao\n", "").replacen("defaults:", second, 1);
    let found = faults(&text);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("stores[0].kind: missing"));
    assert!(found[1].starts_with("stores[1].address"), "{found:#?}");
}

#[test]
fn a_provider_has_keys_of_its_own() {
    let with = |entry: &str| GOOD.replace("defaults:", &format!("  - {entry}\ndefaults:"));
    let good = with("{ name: aws, kind: provider, audience: sts, allow: { namespaces: [x] } }");
    let config = parse(&files(), &good).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let names: Vec<_> = config.stores.names().map(ToString::to_string).collect();
    assert_eq!(names, ["main", "aws"]);
    assert_eq!(config.stores.audiences().len(), 2);
    let found = faults(&with("{ kind: provider, adress: x }"));
    for wanted in [
        "stores[1].name: missing",
        "stores[1].audience: missing",
        "stores[1].allow: missing",
        "stores[1].adress: unknown field",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
    let found = faults(&with(
        "{ name: a.b, kind: provider, audience: sts, ca: DIR/ca.pem, auth: {}, allow: { namespaces: [x] } }",
    ));
    for (fault, wanted) in found.iter().zip(["stores[1].name", "stores[1].ca", "stores[1].auth"]) {
        assert!(fault.starts_with(wanted), "{wanted}: {found:#?}");
    }
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn each_key_without_a_default_is_missed() {
    for (line, path) in [
        ("- name: main\n    kind: openbao", "stores[0].name"),
        ("    kind: openbao\n", "stores[0].kind"),
        ("    address: https://bao.example:8200\n", "stores[0].address"),
        ("    ca: DIR/ca.pem\n", "stores[0].ca"),
        ("    auth: { method: jwt, mount: jwt, audience: bao }\n", "stores[0].auth"),
        ("method: jwt, ", "stores[0].auth.method"),
        (", audience: bao", "stores[0].auth.audience"),
        (
            "    allow: { namespaces: [\"payments\"], serviceAccounts: [\"shop/web\"] }\n",
            "stores[0].allow",
        ),
        ("  issuer: https://kubernetes.default.svc.cluster.local\n", "tokens.issuer"),
        ("  jwks: { file: DIR/jwks.json }\n", "tokens.jwks"),
    ] {
        let new = if path == "stores[0].name" { "- kind: openbao" } else { "" };
        let found = faults_with(line, new);
        assert!(
            found.iter().any(|fault| fault.starts_with(&format!("{path}: missing"))),
            "{path}: {found:#?}"
        );
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    one_fault("DIR/ca.pem", "DIR/none.pem", "stores[0].ca", "none.pem");
    one_fault("DIR/tls.key", "DIR/none.key", "stores[0].clientKey", "none.key");
    one_fault("DIR/jwks.json", "DIR/none.json", "tokens.jwks.file", "none.json");
    one_fault("DIR/classes", "DIR/none", "classes.directory", "none");
    one_fault("DIR/audit.log", "DIR/none/audit.log", "audit.file", "none/audit.log");
}

#[test]
fn duplicates_are_refused() {
    let found = faults(&GOOD.replace("defaults:", "driver: { uid: 0 }\ndefaults:"));
    assert!(found.len() == 1 && found[0].contains("duplicate"), "{found:#?}");
    let (stores, rest) = GOOD.split_once("defaults:").unwrap();
    let entry = stores.split_once("stores:\n").unwrap().1;
    let found = faults(&format!("{stores}{entry}defaults:{rest}"));
    assert!(
        found.len() == 1 && found[0].starts_with("stores[1].name: another store"),
        "{found:#?}"
    );
}

#[test]
fn an_issuer_of_the_development_tools_is_believed_only_in_development() {
    let issuer = "https://kubernetes.default.svc.cluster.local";
    for invalid in ["https://sotto.invalid", "https://SOTTO.Invalid.:8443/x", "sotto.invalid"] {
        one_fault(issuer, invalid, "tokens.issuer", "--development");
    }
    let directory = files();
    let text = GOOD.replace("DIR", &directory.path().display().to_string());
    let text = text.replace(issuer, "https://sotto.invalid");
    assert!(Config::parse(&text, Mode::Development).is_ok());
}

#[test]
fn keys_come_from_one_place_whose_trust_is_pinned() {
    let file = "file: DIR/jwks.json";
    one_fault(file, "", "tokens.jwks", "either file, or url");
    one_fault(file, "file: DIR/jwks.json, url: 'https://a'", "tokens.jwks", "either");
    one_fault(file, "url: 'https://issuer.example/jwks'", "tokens.jwks.ca", "missing");
    one_fault(file, "url: 'http://issuer.example', ca: DIR/ca.pem", "tokens.jwks.url", "https");
    one_fault(file, "file: DIR/jwks.json, ca: DIR/ca.pem", "tokens.jwks.ca", "no CA");
    let url = "url: 'https://issuer.example/jwks', ca: DIR/ca.pem";
    assert_eq!(faults_with(file, url), Vec::<String>::new());
}

#[test]
fn what_is_no_configuration_is_refused() {
    assert!(faults("stores: [")[0].starts_with("not YAML"));
    assert!(faults("- a")[0].contains("not a map"));
    assert!(faults("").iter().any(|fault| fault.starts_with("tokens: missing")));
    assert!(faults("").iter().any(|fault| fault.starts_with("stores: no store is configured")));
    assert!(faults("stores: 7").iter().any(|fault| fault.starts_with("stores: not a list")));
    let error = Config::load(Path::new("/nowhere/config.yaml"), Mode::Production).err().unwrap();
    assert!(error.to_string().contains("/nowhere/config.yaml"));
}

#[test]
fn classes_come_from_the_api_server_unless_a_directory_is_named() {
    let directory = files();
    let with = |new: &str| {
        let text = GOOD.replace("classes: { directory: DIR/classes }", new);
        parse(&directory, &text).map(|config| config.classes)
    };
    for text in ["", "classes:", "classes: { cluster: {} }"] {
        assert!(matches!(with(text), Ok(ClassesFrom::Cluster(Source::InCluster))), "{text}");
    }
    std::fs::write(directory.path().join("kubeconfig"), "").unwrap();
    let kubeconfig = with("kubernetes: { kubeconfig: DIR/kubeconfig }");
    assert!(matches!(kubeconfig, Ok(ClassesFrom::Cluster(Source::Kubeconfig(_)))));
    assert!(matches!(parse(&directory, GOOD).unwrap().classes, ClassesFrom::Directory(_)));
    let classes = "classes: { directory: DIR/classes }";
    one_fault(classes, "kubernetes: { kubeconfig: DIR/none }", "kubernetes.kubeconfig", "none");
    one_fault(classes, "classes: { directory: DIR/classes, cluster: {} }", "classes", "either");
    one_fault(classes, "classes: { cluster: { page: 1 } }", "classes.cluster.page", "unknown");
    let both = "classes: { directory: DIR/classes }\nkubernetes: {}";
    one_fault(classes, both, "kubernetes", "remove one");
}

#[test]
fn the_drivers_name_is_its_own_unless_another_one_is_written() {
    let directory = files();
    assert_eq!(parse(&directory, GOOD).ok().unwrap().driver.name, "csi.sotto.dev");
    let named = GOOD.replace("uid: 3", "uid: 3, name: secrets-store.csi.k8s.io");
    let config = parse(&directory, &named).ok().unwrap();
    assert_eq!(config.driver.name, "secrets-store.csi.k8s.io");
    for name in ["../x", "a/b", "''", "-a", "A"] {
        one_fault("uid: 3", &format!("uid: 3, name: {name}"), "driver.name", "csi.sotto.dev");
    }
}

/// The configurations of `deploy/`, with the pod's directory at `directory`.
fn manifests(directory: &str) -> [String; 2] {
    let base = include_str!("../../../../deploy/base/config.yaml");
    let dev = include_str!("../../../../deploy/overlays/dev/config.yaml");
    [base, dev]
        .map(|text| text.replace("/etc/sotto/tls", directory).replace("/etc/sotto/jwks", directory))
}

#[test]
fn the_manifests_configurations_are_accepted_and_name_the_api_server() {
    let directory = files();
    for text in manifests(&directory.path().display().to_string()) {
        let config = parse(&directory, &text).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert!(matches!(config.classes, ClassesFrom::Cluster(Source::InCluster)));
        assert_eq!(config.stores.audiences().len(), 1);
    }
}

#[test]
fn the_manifests_configurations_miss_only_their_files_where_these_are_not() {
    for text in manifests("/nowhere") {
        for fault in faults(&text) {
            assert!(fault.contains("/nowhere/"), "{fault}");
        }
    }
}
