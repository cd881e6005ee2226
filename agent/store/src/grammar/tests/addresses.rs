use sotto_core::limits::Limits;

use super::bench::*;
use crate::grammar::plan;

#[test]
fn a_class_without_an_address_uses_the_default_store() {
    let plan = openbao(&[]).unwrap();
    assert_eq!((plan.store.as_str(), plan.audience.as_str()), ("main", "bao"));
    assert_eq!(plan.subject.to_string(), "payments/checkout");
    let login = &source(&plan).login;
    assert_eq!((login.role.as_deref(), login.mount.as_str()), (Some("r"), "jwt"));
    assert_eq!(login.namespace, None);
}

#[test]
fn an_address_picks_a_configured_store_in_any_spelling_and_prefix() {
    for (parameter, address) in [
        ("vaultAddress", "https://bao.example:8200"),
        ("baoAddress", "https://BAO.example:8200/"),
        ("openbaoAddress", " https://bao.example:8200 "),
    ] {
        assert_eq!(openbao(&[(parameter, address)]).unwrap().store.as_str(), "main");
    }
}

#[test]
fn the_first_prefix_wins_and_vaults_provider_knows_only_its_own() {
    let parameters =
        [("vaultAddress", "https://evil.example"), ("baoAddress", "https://bao.example:8200")];
    assert_eq!(openbao(&parameters).unwrap().store.as_str(), "main");
    let plan = vault(&[("baoAddress", "https://evil.example")]).unwrap();
    assert_eq!(plan.store.as_str(), "main");
    assert_eq!(plan.warnings, ["parameter \"baoAddress\" is unknown and was ignored"]);
}

#[test]
fn an_address_that_is_not_configured_is_refused_with_what_to_do() {
    for address in
        ["https://evil.example", "http://bao.example:8200", "bao.example", "https://bao.example"]
    {
        assert_eq!(
            texts(vault(&[("vaultAddress", address)])),
            [format!(
                "parameter vaultAddress: {address:?} is not a configured store: use https://bao.example:8200, or ask the administrator to add it"
            )]
        );
    }
}

#[test]
fn a_store_that_the_namespace_may_not_use_is_refused() {
    assert_eq!(
        texts(vault(&[("vaultAddress", "https://vault.example")])),
        [
            "store private may not be used by payments/checkout: ask the administrator to add namespace payments to its allow list"
        ]
    );
}

#[test]
fn a_class_of_another_namespace_is_refused() {
    let class = class("openbao", &[]);
    let stores = stores(Some("main"));
    let faults = plan(&class, &identity("other"), &stores, &Limits::default()).unwrap_err();
    assert!(
        faults[0].to_string().starts_with("the class is of namespace payments, the pod of other")
    );
}

#[test]
fn without_an_address_and_a_default_the_class_must_name_one() {
    let faults =
        plan(&class("vault", &[]), &identity("payments"), &stores(None), &Limits::default());
    assert!(texts(faults)[0].contains("add parameter vaultAddress: use https://bao.example:8200"));
}

#[test]
fn another_provider_is_refused() {
    assert_eq!(
        texts(of_class(&class("aws", &[]), &Limits::default())),
        [
            "provider aws is not configured: ask the administrator to add a store of kind provider named aws"
        ]
    );
    for name in ["", "../aws", "a b", "aws\n"] {
        let texts = texts(of_class(&class(name, &[]), &Limits::default()));
        assert!(
            texts[0].starts_with(&format!("provider {name:?} is not served here")),
            "{texts:?}"
        );
    }
}

#[test]
fn verification_cannot_be_turned_off_under_any_prefix() {
    for value in ["true", "True", "1", "t", "yes", "maybe"] {
        for name in ["baoSkipTLSVerify", "openbaoSkipTLSVerify", "vaultSkipTLSVerify"] {
            let parameters = [("baoSkipTLSVerify", "false"), (name, value)];
            let texts = texts(openbao(&parameters));
            assert_eq!(texts.len(), 1, "{texts:?}");
            assert!(
                texts[0]
                    .starts_with(&format!("parameter {name}: verification can't be turned off"))
            );
        }
    }
    for value in ["false", "False", "0", "f", ""] {
        assert!(vault(&[("vaultSkipTLSVerify", value)]).is_ok(), "{value}");
    }
}

#[test]
fn trust_and_identity_are_not_the_classs() {
    for name in
        ["vaultCACertPath", "vaultCADirectory", "vaultTLSClientCertPath", "vaultTLSClientKeyPath"]
    {
        let texts = texts(vault(&[(name, "/x")]));
        assert!(
            texts[0].starts_with(&format!("parameter {name}: the administrator decides")),
            "{texts:?}"
        );
    }
    assert!(vault(&[("vaultTLSServerName", "bao.internal")]).is_ok());
    assert!(
        texts(vault(&[("vaultTLSServerName", "evil")]))[0]
            .contains("name in the certificate of store main")
    );
}

#[test]
fn the_mount_must_be_the_stores() {
    for name in ["vaultKubernetesMountPath", "vaultAuthMountPath"] {
        assert!(vault(&[(name, "/jwt/")]).is_ok());
        assert_eq!(
            texts(vault(&[(name, "mine")])),
            [format!(
                r#"parameter {name}: store main logs in at "jwt", not "mine"; correct or remove it"#
            )]
        );
    }
    assert_eq!(
        texts(vault(&[("vaultKubernetesMountPath", "jwt"), ("vaultAuthMountPath", "jwt")])),
        ["parameters vaultKubernetesMountPath and vaultAuthMountPath: only one of them"]
    );
}

#[test]
fn the_audience_must_be_the_stores() {
    assert!(openbao(&[("audience", "bao")]).is_ok());
    assert_eq!(
        texts(openbao(&[("audience", "vault")])),
        [
            r#"parameter audience: tokens for store main have audience bao, not "vault"; correct or remove it"#
        ]
    );
}

#[test]
fn of_two_stores_at_one_address_the_one_that_agrees_is_used() {
    let plan = vault(&[
        ("vaultAddress", "https://bao.example:8200"),
        ("vaultKubernetesMountPath", "k8s"),
        ("vaultNamespace", "team-a/billing"),
        ("roleName", ""),
    ])
    .unwrap();
    assert_eq!((plan.store.as_str(), plan.audience.as_str()), ("team", "vault"));
    let login = &source(&plan).login;
    assert_eq!(login.role.as_deref(), Some("default-role"));
    assert_eq!(login.namespace.as_ref().unwrap().as_str(), "team-a/billing");
}

#[test]
fn a_namespace_is_only_within_the_stores() {
    let at = |namespace: &str| {
        let class = class("vault", &[("vaultNamespace", namespace)]);
        plan(&class, &identity("payments"), &stores(Some("team")), &Limits::default())
    };
    assert!(at("team-a").is_ok());
    assert!(
        texts(at("team-b"))[0].contains("store team is for namespace team-a and those beneath it")
    );
    assert!(texts(at("a//b"))[0].starts_with("parameter vaultNamespace: not a namespace"));
}

#[test]
fn a_role_is_needed_and_must_be_printable() {
    assert!(texts(openbao(&[("roleName", "")]))[0].starts_with("parameter roleName is missing"));
    assert!(texts(openbao(&[("roleName", "a\nb")]))[0].starts_with("parameter roleName: write"));
}

#[test]
fn all_faults_come_at_once() {
    let texts = texts(openbao(&[
        ("vaultSkipTLSVerify", "true"),
        ("vaultCACertPath", "/x"),
        ("audience", "x"),
        ("roleName", ""),
        ("objects", "[{objectName: ../x, secretPath: a//b}]"),
    ]));
    assert_eq!(texts.len(), 6, "{texts:#?}");
}

#[test]
fn a_store_without_its_files_is_a_fault_at_start_and_so_are_two_of_one_name() {
    let yaml = "
- {name: main, kind: openbao, address: 'https://a', ca: /none/ca.pem, auth: {method: jwt, audience: b}, allow: {namespaces: ['*']}}
- {name: main, kind: openbao, address: 'http://a', ca: /none/ca.pem, auth: {method: jwt, audience: b}, allow: {namespaces: ['*']}}";
    let configs: Vec<crate::config::StoreConfig> = serde_saphyr::from_str(yaml).unwrap();
    let configs = configs.into_iter().map(Into::into).collect();
    let default = sotto_core::identity::StoreName::parse("other").unwrap();
    let faults = crate::Stores::open(configs, Some(default)).err().unwrap();
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["stores[1].address", "stores[1].name", "defaults.store", "stores[0].ca"]);
}
