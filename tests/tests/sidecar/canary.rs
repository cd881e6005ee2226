//! In sidecar mode neither the pod's token nor a secret is ever in the driver's or the node agent's memory, in the
//! journal or in a log. The search is shown to find what is there, in the very same processes.

use std::path::Path;

use serde_json::json;
use sotto_dev::node::Restart;
use sotto_tests::files::read;
use sotto_tests::memory::{search, secret_mappings};
use sotto_tests::procfs;
use sotto_tests::scene::StoreSettings;
use sotto_tests::sidecars::{self, PATIENCE, scene_with, shows};

const SECRETS: [&str; 2] = ["canary-secret-5d1e07-one", "canary-secret-5d1e07-two"];
const PLANTED: &str = "planted-canary-a81c44";

/// Every file below a directory whose content has one of the needles.
fn in_files(directory: &Path, needles: &[&[u8]]) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            found.extend(in_files(&path, needles)?);
        } else if kind.is_file() {
            let content = std::fs::read(&path)?;
            let has = |needle: &&[u8]| content.windows(needle.len()).any(|at| at == *needle);
            if needles.iter().any(has) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_token_nor_secret_is_in_the_driver_the_node_agent_the_journal_or_a_log()
-> anyhow::Result<()> {
    let settings = StoreSettings { canary: Some(PLANTED.to_owned()), ..StoreSettings::sidecars() };
    let mut scene = scene_with(settings).await?;
    scene.write("payments/checkout/db", json!({"password": SECRETS[0], "user": "u"})).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[("sotto.dev/refresh", "1s")]).await?;
    let tokens = [scene.kubelet().token(&pod.pod, "bao", std::time::Duration::from_secs(600))];
    // A life: read, rotated, killed, kubelet restarted, the driver restarted.
    assert_eq!(read(secrets.join("password")).await?, SECRETS[0]);
    scene.write("payments/checkout/db", json!({"password": SECRETS[1], "user": "u"})).await?;
    shows(&secrets.join("password"), SECRETS[1]).await?;
    pod.kill_sidecar().await?;
    pod.restart_sidecar(scene.node(), Restart::Immediate).await?;
    pod.ready(scene.node(), PATIENCE).await?;
    scene.node_mut().restart_csi().await?;
    scene.kubelet().reconstruct(&pod.pod).await?;
    assert_eq!(read(secrets.join("password")).await?, SECRETS[1]);

    // A token's signature is what makes it one.
    let signatures = tokens.iter().filter_map(|token| token.rsplit('.').next());
    let needles: Vec<&[u8]> = SECRETS.into_iter().chain(signatures).map(str::as_bytes).collect();
    let all: Vec<&[u8]> = needles.iter().copied().chain([PLANTED.as_bytes()]).collect();
    for process in [scene.node().csi(), scene.node().agent()] {
        let mut planted = 0;
        for pid in procfs::tree(process.pid()) {
            let found = search(pid, &all)?;
            let (canary, rest) = found.split_last().expect("it was searched for");
            assert!(
                rest.iter().all(|count| *count == 0),
                "{}: {rest:?}",
                procfs::command_line(pid)
            );
            planted += canary;
        }
        assert!(planted > 0, "the search finds what is there: {}", process.pid());
        let log = process.log().text();
        assert!(!needles.iter().any(|needle| log.contains(std::str::from_utf8(needle).unwrap())));
    }
    let run = scene.node().path("run");
    assert_eq!(in_files(&run, &needles)?, Vec::<String>::new());
    assert!(!in_files(&run, &[pod.pod.uid.as_bytes()])?.is_empty(), "the journal is there");
    assert!(!pod.output().contains(SECRETS[0]) && !pod.output().contains(SECRETS[1]));
    pod.end(scene.node()).await?;
    Ok(())
}

/// Where they are: in the sidecar, in memory that even root can't read, and in nothing that a search can see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecar_has_the_secret_where_a_search_can_not_see_it() -> anyhow::Result<()> {
    let settings = StoreSettings { canary: Some(PLANTED.to_owned()), ..StoreSettings::sidecars() };
    let scene = scene_with(settings).await?;
    sidecars::write(&scene, SECRETS[0]).await?;
    let (mut pod, secrets) = scene.delivered("checkout-0", &[]).await?;
    assert_eq!(read(secrets.join("password")).await?, SECRETS[0]);
    let running = pod.running().expect("it serves").pid();
    let worker = pod.worker().expect("it serves");
    let planted: usize = procfs::tree(running)
        .into_iter()
        .map(|pid| search(pid, &[PLANTED.as_bytes()]).map(|found| found[0]))
        .sum::<Result<_, _>>()?;
    assert!(planted > 0, "the search sees into the sidecar");
    assert_eq!(search(running, &[SECRETS[0].as_bytes()])?, [0], "its supervisor has none");
    if !secret_mappings(worker)?.is_empty() {
        let own = search(std::process::id(), &[SECRETS[0].as_bytes()])?;
        assert!(own[0] > 0, "this process has it");
    }
    pod.end(scene.node()).await?;
    Ok(())
}
