//! Mounts that are refused: what kubelet shows on the pod, the driver's words at its end.

use std::sync::Arc;

use serde_json::json;
use sotto_dev::kubelet::CsiDriver;
use sotto_dev::provider::{Behaviour, DevProvider};
use sotto_dev::store::{Fault, ROLE, Role};
use sotto_tests::scene::CSI_DRIVER;

use super::{CANARY, Cluster, OBJECTS, assert_says};

/// The cases that any store can bring about; those of providers have a test of their own below.
struct Case {
    name: &'static str,
    account: &'static str,
    class: &'static str,
    wrong: &'static [&'static str],
    to_do: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "no such class",
        account: "checkout",
        class: "none",
        wrong: &["code = NotFound", "no SecretProviderClass none in namespace payments"],
        to_do: &["create it there, or correct the volume's secretProviderClass attribute"],
    },
    Case {
        name: "class of an unknown store",
        account: "checkout",
        class: "unknown-store",
        wrong: &[
            "SecretProviderClass unknown-store",
            "parameter vaultAddress",
            "https://evil.invalid:8200",
            "is not a configured store",
        ],
        to_do: &["use https://127.0.0.1:", "or ask the administrator to add it"],
    },
    Case {
        name: "policy refusal",
        account: "other",
        class: "db",
        wrong: &[
            "code = PermissionDenied",
            "object 0 (p)",
            "store main refuses payments/other",
            "policy denies secret/data/payments/checkout/db",
        ],
        to_do: &["allow it by a policy of the pod's role, or correct secretPath"],
    },
    Case {
        name: "class with another audience",
        account: "checkout",
        class: "audience",
        wrong: &["parameter audience", "tokens for store main have audience bao, not \"vault\""],
        to_do: &["correct or remove it"],
    },
    Case {
        name: "object too large",
        account: "checkout",
        class: "large",
        wrong: &[
            "code = ResourceExhausted",
            "object 0 (large)",
            "1048577 bytes",
            "at most 1048576",
        ],
        to_do: &["make the value smaller", "raise limits.objectBytes"],
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_says_what_is_wrong_and_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let large = json!({"password": "x".repeat((1 << 20) + 1)});
    cluster.scene.write("payments/checkout/large", large).await?;
    let elsewhere = [("vaultAddress", "https://evil.invalid:8200")];
    cluster.class("unknown-store", OBJECTS, &elsewhere).await?;
    cluster.class("audience", OBJECTS, &[("audience", "vault")]).await?;
    let large = OBJECTS.replace("/db,", "/large,").replace("objectName: p", "objectName: large");
    cluster.class("large", &large, &[]).await?;
    for (index, case) in CASES.iter().enumerate() {
        let pod = format!("case-{index}");
        let text = cluster.failed_mount(&pod, case.account, case.class).await?;
        assert!(text.starts_with("MountVolume.SetUp failed for volume \"secrets\""), "{text}");
        assert_says(case.name, &text, case.wrong, case.to_do);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_is_named_with_what_to_look_at() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let store = cluster.scene.store();
    for (index, (fault, wrong, to_do)) in [
        (Fault::Sealed, "store main is sealed", "unseal it"),
        (Fault::NoLeader, "store main has no active node", "check its health"),
        (Fault::Status(502), "store main is unavailable (status 502", "check its health"),
        (
            Fault::RateLimited(None),
            "store main limits the rate of requests",
            "raise its rate limit",
        ),
        (Fault::Garbage, "the answer of store main can't be read", "check that its address"),
    ]
    .into_iter()
    .enumerate()
    {
        store.fail(None, fault, None);
        let text = cluster.failed_mount(&format!("fault-{index}"), "checkout", "db").await?;
        store.heal();
        assert_says(wrong, &text, &[wrong], &[to_do]);
    }
    store.go_dark();
    let text = cluster.failed_mount("dark-0", "checkout", "db").await?;
    let wrong = ["code = Unavailable", "store main is unreachable"];
    assert_says("store down", &text, &wrong, &["check its address, its health and the network"]);
    Ok(())
}

/// The token for another audience, wherever it is noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_another_audience_is_said_with_where_to_set_it() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |_| {}).await?;
    let (scene, case) = (&cluster.scene, "token for another audience");
    let other = CSI_DRIVER.replace("audience: bao", "audience: vault");
    scene.kubelet().apply(CsiDriver::parse(&other)?);
    let text = cluster.failed_mount("map-0", "checkout", "db").await?;
    let wrong = ["kubelet sent no token for audience bao, only for vault"];
    assert_says(case, &text, &wrong, &["add bao to the CSIDriver's tokenRequests"]);

    let none = CSI_DRIVER.replace("tokenRequests:", "ignored:");
    scene.kubelet().apply(CsiDriver::parse(&none)?);
    let text = cluster.failed_mount("none-0", "checkout", "db").await?;
    let wrong = ["the request has no service account token"];
    assert_says(case, &text, &wrong, &["the CSIDriver object needs tokenRequests"]);

    scene.kubelet().apply(CsiDriver::parse(CSI_DRIVER)?);
    scene.kubelet().mint_with(Arc::new(|token| token.claim("/aud", json!(["vault"]))));
    let text = cluster.failed_mount("claim-0", "checkout", "db").await?;
    let wrong = ["code = Unauthenticated", "the pod's token is not for audience bao"];
    assert_says(case, &text, &wrong, &["compare the store's audience", "tokenRequests"]);

    scene.kubelet().mint_with(Arc::new(|token| token));
    let bound = vec!["vault".to_owned()];
    let role = Role { bound_audiences: bound, ..Role::of_namespace("payments") };
    scene.store().put_role("jwt", ROLE, role);
    let text = cluster.failed_mount("role-0", "checkout", "db").await?;
    let wrong = ["store main refuses the login of payments/checkout at auth/jwt", "audience"];
    assert_says(case, &text, &wrong, &["compare the role there with the pod"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_reached_are_said_with_how_to_raise_them() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |config| {
        config["limits"] =
            json!({"volumes": 2, "objects": 3, "objectBytes": 100, "volumeBytes": 150});
    })
    .await?;
    let scene = &cluster.scene;
    scene.write("payments/checkout/long", json!({"password": "x".repeat(90)})).await?;
    let object = |index: usize| {
        let name = format!("objectName: o{index}");
        OBJECTS.replace("objectName: p", &name).replace("/db,", "/long,") + "\n"
    };
    cluster.class("many", &(0..4).map(object).collect::<String>(), &[]).await?;
    cluster.class("sum", &(0..2).map(object).collect::<String>(), &[]).await?;
    let text = cluster.failed_mount("many-0", "checkout", "many").await?;
    let wrong = ["SecretProviderClass many", "4 objects: at most 3"];
    assert_says("objects", &text, &wrong, &["raise limits.objects"]);
    let text = cluster.failed_mount("sum-0", "checkout", "sum").await?;
    let wrong = ["more than 150 bytes in all"];
    assert_says("bytes of a volume", &text, &wrong, &["raise limits.volumeBytes"]);

    let pods = ["a-0", "b-0"].map(|name| scene.pod(name, "checkout", "db"));
    for pod in &pods {
        scene.publish(pod).await?;
    }
    let text = cluster.failed_mount("c-0", "checkout", "db").await?;
    let wrong = ["code = ResourceExhausted", "this node serves 2 volumes already"];
    assert_says("limit reached", &text, &wrong, &["raise limits.volumes", "run the pod elsewhere"]);
    scene.stop(&pods[0]).await?;
    let freed = scene.pod("c-0", "checkout", "db");
    scene.publish(&freed).await?;
    scene.stop(&freed).await?;
    scene.stop(&pods[1]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_providers_faults_are_said_with_what_to_do() -> anyhow::Result<()> {
    let cluster = Cluster::start(CANARY, |config| {
        let provider = json!({
            "name": "fake", "kind": "provider", "audience": "bao", "allow": {"namespaces": ["payments"]},
        });
        config["stores"].as_array_mut().unwrap().push(provider);
    })
    .await?;
    cluster.class_of("fake", "fake", OBJECTS, &[]).await?;
    let text = cluster.failed_mount("absent-0", "checkout", "fake").await?;
    let wrong = ["provider fake is not installed on this node", "no socket fake.sock"];
    assert_says("provider not installed", &text, &wrong, &["install it"]);
    let directory = cluster.scene.node().path("providers");
    let _provider = DevProvider::start(&directory, "fake", Behaviour::WithoutFiles)?;
    let text = cluster.failed_mount("writes-0", "checkout", "fake").await?;
    let wrong = ["provider fake writes files itself instead of returning them"];
    assert_says("provider writes files itself", &text, &wrong, &["use a provider version"]);
    Ok(())
}
