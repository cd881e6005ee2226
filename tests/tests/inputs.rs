//! Bad classes: refused with the object's index and name, nothing sent, nothing mounted.

use serde_json::{Value, json};
use sotto_dev::store::{DevStore, Operation};
use sotto_tests::files;
use sotto_tests::scene::Scene;

fn object(name: &str) -> String {
    let name = Value::from(name);
    format!(
        "- {{objectName: {name}, secretPath: secret/data/payments/checkout/db, secretKey: a}}\n"
    )
}

async fn refusal_of(scene: &Scene<DevStore>, class: &str, objects: &str) -> anyhow::Result<String> {
    scene.class(class, objects)?;
    scene.refusal(&scene.pod(&format!("{class}-0"), "checkout", class)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_class_is_refused_with_the_objects_name() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let long = "n".repeat(256);
    let names = ["../x", "a//b", "/abs", "a\u{0}b", &long, "..data", ".", "a/../b", "a/", "ü", ""];
    for (index, name) in names.into_iter().enumerate() {
        let objects = object("fine") + &object(name);
        let refusal = refusal_of(&scene, &format!("name-{index}"), &objects).await?;
        assert!(refusal.contains("object 1"), "{name:?}: {refusal}");
    }
    let twice = refusal_of(&scene, "twice", &(object("a") + &object("b") + &object("a"))).await?;
    assert!(twice.contains("object 2 (a)"), "{twice}");
    let both = refusal_of(&scene, "both", &(object("a/b") + &object("a"))).await?;
    assert!(both.contains('a') && both.contains("directory"), "{both}");
    for (class, objects, words) in [
        ("empty", "[]", "object"),
        ("no-list", "just: words", "objects"),
        ("no-yaml", "- {objectName: [", "objects"),
        ("no-path", "- {objectName: a}", "secretPath"),
        ("climbs", "- {objectName: a, secretPath: secret/../sys/raw, secretKey: a}", "secretPath"),
        ("doubled", "- {objectName: a, secretPath: secret//x, secretKey: a}", "secretPath"),
    ] {
        let refusal = refusal_of(&scene, class, objects).await?;
        assert!(refusal.contains(words), "{class}: {refusal}");
    }
    let many: String = (0..1_001).map(|index| object(&format!("o{index}"))).collect();
    let many = refusal_of(&scene, "many", &many).await?;
    assert!(many.contains("1001") || many.contains("1000"), "{many}");
    assert_eq!(scene.store().count(Operation::Login), 0, "nothing was sent to the store");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_over_the_limits_are_refused_with_the_objects_name() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/big", json!({"a": "x".repeat((1 << 20) + 1)})).await?;
    let object = |name: &str, path: &str| {
        format!(
            "- {{objectName: {name}, secretPath: secret/data/payments/checkout/{path}, secretKey: a}}\n"
        )
    };
    let big = refusal_of(&scene, "big", &object("large", "big")).await?;
    assert!(big.contains("object 0 (large)") && big.contains("1048576"), "{big}");
    let mut objects = String::new();
    for index in 0..9 {
        let path = format!("part{index}");
        scene
            .write(&format!("payments/checkout/{path}"), json!({"a": "y".repeat(1 << 20)}))
            .await?;
        objects += &object(&path, &path);
    }
    let sum = refusal_of(&scene, "sum", &objects).await?;
    assert!(sum.contains("8388608"), "{sum}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_cannot_choose_where_or_whom_to_trust() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let objects = object("a");
    for (class, parameter, value) in [
        ("address", "vaultAddress", "https://evil.invalid:8200"),
        ("skip", "vaultSkipTLSVerify", "true"),
        ("ca", "vaultCACertPath", "/tmp/ca.pem"),
        ("audience", "audience", "other"),
    ] {
        let mut parameters = json!({"roleName": "payments", "objects": objects});
        parameters[parameter] = json!(value);
        scene.class_with(class, parameters)?;
        let refusal = scene.refusal(&scene.pod(&format!("{class}-0"), "checkout", class)).await?;
        assert!(refusal.contains(parameter), "{class}: {refusal}");
    }
    assert_eq!(scene.store().count(Operation::Login), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_cannot_override_its_class() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    scene.write("payments/checkout/db", json!({"a": "v"})).await?;
    scene.class("db", &object("a"))?;
    let mut pod = scene.pod("override-0", "checkout", "db");
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("vaultAddress".to_owned(), "https://evil.invalid".to_owned());
    let refusal = scene.refusal(&pod).await?;
    assert!(
        refusal.contains("vaultAddress") && refusal.contains("SecretProviderClass"),
        "{refusal}"
    );
    pod.volumes[0].attributes.remove("vaultAddress");
    assert_eq!(files::read(scene.publish(&pod).await?.join("a")).await?, "v");
    scene.stop(&pod).await
}
