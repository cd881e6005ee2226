//! What a class may not say: refused by name, with what to do, before anything is sent to the store.

use sotto_dev::store::Operation;
use sotto_tests::scene::Scene;

use super::{ONE_OBJECT, PROVIDERS, apply};

/// Parameters of a class, and what its pod's event says: what is wrong, what to do.
type Refused = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const ADMINISTRATOR: &[&str] = &["the administrator decides", "remove it"];
const NOT_OFF: &[&str] = &["verification can't be turned off", "remove it"];
const UNKNOWN: &[&str] =
    &["is not a configured store", "use https://127.0.0.1:", "ask the administrator"];

const REFUSED: &[Refused] = &[
    (&[("vaultSkipTLSVerify", "true")], NOT_OFF),
    (&[("vaultSkipTLSVerify", "1")], NOT_OFF),
    (&[("vaultSkipTLSVerify", "maybe")], NOT_OFF),
    (&[("vaultCACertPath", "/vault/tls/ca.pem")], ADMINISTRATOR),
    (&[("vaultCADirectory", "/vault/tls")], ADMINISTRATOR),
    (&[("vaultTLSClientCertPath", "/vault/tls/client.pem")], ADMINISTRATOR),
    (&[("vaultTLSClientKeyPath", "/vault/tls/client.key")], ADMINISTRATOR),
    (&[("vaultTLSServerName", "evil.invalid")], ADMINISTRATOR),
    (&[("vaultAddress", "https://evil.invalid:8200")], UNKNOWN),
    (&[("vaultAddress", "http://127.0.0.1:8200")], UNKNOWN),
    (&[("vaultAddress", "not an address")], UNKNOWN),
    (
        &[("vaultKubernetesMountPath", "kubernetes")],
        &["logs in at \"jwt\"", "correct or remove it"],
    ),
    (&[("vaultAuthMountPath", "mine")], &["logs in at \"jwt\"", "correct or remove it"]),
    (
        &[("vaultKubernetesMountPath", "jwt"), ("vaultAuthMountPath", "jwt")],
        &["vaultAuthMountPath", "only one of them"],
    ),
    (&[("audience", "vault")], &["have audience bao, not \"vault\"", "correct or remove it"]),
    (&[("vaultNamespace", "a//b")], &["namespace"]),
    (&[("roleName", "")], &["is missing", "name the role"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_says_too_much_is_refused_by_name_and_nothing_is_sent() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    for provider in PROVIDERS {
        for (index, (parameters, words)) in REFUSED.iter().enumerate() {
            let mut parameters = parameters.to_vec();
            let named = parameters[0].0;
            if named != "roleName" {
                parameters.push(("roleName", "payments"));
            }
            let class = format!("{provider}-{index}");
            let pod = apply(&scene, &class, provider, &parameters, ONE_OBJECT)?;
            let (code, message) = scene.refused(&pod).await?;
            assert_eq!(code, tonic::Code::InvalidArgument, "{parameters:?}: {message}");
            let begin = format!("SecretProviderClass {class}: parameter");
            assert!(message.starts_with(&begin) && message.contains(named), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{parameters:?}: {message}");
        }
    }
    assert_eq!(scene.store().count(Operation::Login), 0, "no token was shown to anybody");
    Ok(())
}

/// What must not be hidden behind a prefix that wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_prefix_hides_a_parameter_that_is_refused() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let role = ("roleName", "payments");
    for (index, hidden) in ["openbaoSkipTLSVerify", "vaultSkipTLSVerify"].into_iter().enumerate() {
        let parameters = [role, ("baoSkipTLSVerify", "false"), (hidden, "true")];
        let pod = apply(&scene, &format!("verify-{index}"), "openbao", &parameters, ONE_OBJECT)?;
        let refusal = scene.refusal(&pod).await?;
        assert!(refusal.contains(&format!("parameter {hidden}: verification")), "{refusal}");
    }
    for (index, prefix) in ["bao", "openbao", "vault"].into_iter().enumerate() {
        let named = format!("{prefix}CACertPath");
        let parameters = [role, (named.as_str(), "/tmp/ca.pem")];
        let pod = apply(&scene, &format!("trust-{index}"), "openbao", &parameters, ONE_OBJECT)?;
        let refusal = scene.refusal(&pod).await?;
        assert!(refusal.contains(&format!("parameter {named}: the administrator")), "{refusal}");
    }
    assert_eq!(scene.store().count(Operation::Login), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_wrong_with_a_class_is_said_at_once() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let parameters =
        [("vaultSkipTLSVerify", "true"), ("vaultCACertPath", "/x"), ("audience", "other")];
    let objects = "- {objectName: ../x, secretPath: secret/data/x, encoding: rot13}";
    let pod = apply(&scene, "all", "vault", &parameters, objects)?;
    let refusal = scene.refusal(&pod).await?;
    for word in ["vaultSkipTLSVerify", "vaultCACertPath", "audience", "roleName", "object 0 (../x)"]
    {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
    Ok(())
}
