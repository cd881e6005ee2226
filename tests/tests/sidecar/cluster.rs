//! What the API server has to do with an injected pod: sotto-node looks at its own node's pods, and tells them things.

use serde_json::{Value, json};
use sotto_dev::kubelet::Pod;
use sotto_dev::node::{Injected, SECRETS};
use sotto_tests::cluster::Cluster;
use sotto_tests::files::read;
use sotto_tests::sidecars::{PATIENCE, manifest};

const SECRET: &str = "cluster-secret-0c11";

/// A change of a pod.
type Edit = fn(&mut Value);

/// A pod that the webhook has made, and that the API server has as `edit` leaves it.
async fn created(
    cluster: &Cluster,
    name: &str,
    edit: impl Fn(&mut Value),
) -> anyhow::Result<Injected> {
    let made = cluster.scene.node().inject(&manifest(name, "checkout", &[])).await?;
    let pod = Pod::parse(&made)?;
    let mut object: Value = serde_saphyr::from_str(&made)?;
    object["metadata"]["uid"] = json!(pod.uid);
    object["spec"]["nodeName"] = json!("node-1");
    edit(&mut object);
    cluster.server.put("pods", object);
    let client = cluster.scene.authority().client(&format!("{name}.payments.pod"))?;
    Ok(cluster.scene.node().injected(&pod, &client)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_lacks_our_sidecar_gets_no_volume_of_its_driver() -> anyhow::Result<()> {
    let cluster = Cluster::of_node(SECRET, true, |_| {}).await?;
    let spoiled: [(&str, Edit); 4] = [
        ("without-sidecar", |pod| pod["spec"]["initContainers"] = json!([])),
        ("no-native-sidecar", |pod| {
            pod["spec"]["initContainers"][0]["restartPolicy"] = Value::Null;
        }),
        ("as-root", |pod| {
            pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"] = json!(0);
        }),
        ("socket-for-the-app", |pod| {
            let mount = json!({"name": "sotto-handoff", "mountPath": "/mine"});
            pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
        }),
    ];
    for (name, spoil) in spoiled {
        let pod = created(&cluster, name, spoil).await?;
        let refused = cluster.scene.kubelet().publish(&pod.pod, pod.secrets()?).await;
        let error = refused.err().ok_or_else(|| anyhow::anyhow!("{name} was not refused"))?;
        assert!(error.event(SECRETS).contains("sidecar"), "{name}: {error}");
    }
    // The detector: as the webhook makes it, it is given the volume.
    let mut pod = created(&cluster, "checkout-0", |_| {}).await?;
    cluster.scene.publish_injected(&pod).await?;
    pod.start_sidecar(cluster.scene.node()).await?;
    pod.ready(cluster.scene.node(), PATIENCE).await?;
    let secrets = pod.show_secrets(cluster.scene.node())?;
    assert_eq!(read(secrets.join("p")).await?, SECRET);
    pod.end(cluster.scene.node()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_at_the_socket_is_told_on_the_pod() -> anyhow::Result<()> {
    let cluster = Cluster::of_node(SECRET, true, |_| {}).await?;
    let mut pod = created(&cluster, "checkout-0", |_| {}).await?;
    cluster.scene.publish_injected(&pod).await?;
    pod.start_sidecar(cluster.scene.node()).await?;
    pod.ready(cluster.scene.node(), PATIENCE).await?;
    let second = pod.another_sidecar(cluster.scene.node()).await?;
    let message = cluster.event("checkout-0", "HandoffRefused").await;
    assert!(message.contains("a pod has one sidecar"), "{message}");
    second.kill().await?;
    pod.end(cluster.scene.node()).await?;
    Ok(())
}
