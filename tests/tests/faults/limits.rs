//! More than there is room for: names, sizes, disk, locked memory; and where a secret must never be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use serde_json::{Value, json};
use sotto_dev::node::{AGENT_ID, may_become};
use sotto_dev::process::{Program, Running, Stream};
use sotto_dev::store::Operation;
use sotto_tests::memory::in_memory;
use sotto_tests::metrics;
use sotto_tests::procfs;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::Served;
use sotto_tests::table::Outcome;
use sotto_tests::wait::until;

const CANARY: &str = "canary-secret-5d07a1";

fn object(name: &str, path: &str) -> String {
    let name = Value::from(name);
    format!(
        "- {{objectName: {name}, secretPath: secret/data/payments/checkout/{path}, secretKey: a}}\n"
    )
}

pub(crate) async fn of_size_and_number() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let scene = &served.scene;
    scene.write("payments/checkout/small", json!({"a": "x"})).await?;
    scene.write("payments/checkout/most", json!({"a": "x".repeat(1 << 20)})).await?;
    scene.write("payments/checkout/more", json!({"a": "x".repeat((1 << 20) + 1)})).await?;
    let many =
        |count: usize| (0..count).map(|index| object(&format!("o{index}"), "small")).collect();
    let worker = scene.node().worker().context("no worker")?;
    let before = procfs::resident_kib(worker);
    let classes: [(&str, String, &str); 3] = [
        ("ten-thousand", many(10_000), ""),
        ("one-too-many", many(1_001), "1000"),
        ("too-large", object("large", "more"), "object 0 (large)"),
    ];
    for (class, objects, words) in classes {
        scene.class(class, &objects)?;
        let message = scene.refusal(&scene.pod(&format!("{class}-0"), "checkout", class)).await?;
        anyhow::ensure!(message.contains(words) && message.len() <= 1_024, "{class}: {message}");
    }
    for (class, objects, count) in
        [("largest", object("o0", "most"), 1), ("listing", many(1_000), 1_000)]
    {
        scene.class(class, &objects)?;
        let pod = scene.pod(&format!("{class}-0"), "checkout", class);
        let target = scene.publish(&pod).await?;
        let listed = std::fs::read_dir(target.join("..data"))?.count();
        anyhow::ensure!(listed == count, "{class}: {listed} names");
        anyhow::ensure!(!std::fs::read(target.join("o0"))?.is_empty());
        scene.stop(&pod).await?;
    }
    let grown = procfs::resident_kib(worker).saturating_sub(before) / 1024;
    anyhow::ensure!(grown < 96, "the worker grew by {grown} MiB");
    Ok(Outcome::held().noting(format!("the worker grew by {grown} MiB")))
}

pub(crate) async fn of_names() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let long = "n".repeat(256);
    let names = ["../x", "a/../b", "..data", "/abs", "a\u{0}b", "ü", &long, ""];
    for (index, name) in names.into_iter().enumerate() {
        let class = format!("name-{index}");
        served.scene.class(&class, &(object("fine", "pair") + &object(name, "pair")))?;
        let pod = served.scene.pod(&format!("{class}-0"), "checkout", &class);
        let message = served.scene.refusal(&pod).await?;
        anyhow::ensure!(message.contains("object 1"), "{name:?}: {message}");
    }
    anyhow::ensure!(served.scene.store().count(Operation::Login) == 0, "the store was asked");
    Ok(Outcome::held().noting(format!("{} names", names.len())))
}

/// The machine's directories are one tmpfs; there is no other place to write to.
pub(crate) async fn of_the_disk() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 2, &[("sotto.dev/refresh", "1s")]).await?;
    let readers = served.readers(2)?;
    let filler = served.scene.node().path("filler");
    fill(&filler)?;
    let pod = served.pod(9, &[]);
    let request = {
        // kubelet has no room for its own files either; its directories are there.
        let target = served.scene.kubelet().target(&pod, &pod.volumes[0]);
        std::fs::create_dir_all(target.parent().context("a parent")?)?;
        served.scene.kubelet().request(&pod, &pod.volumes[0])
    };
    let refused = served.scene.kubelet().send(request).await;
    let target = served.scene.kubelet().target(&pod, &pod.volumes[0]);
    if let Err(error) = &refused {
        anyhow::ensure!(error.to_string().contains("journal"), "{error}");
        anyhow::ensure!(sotto_tests::served::is_gone(&target)?, "something is left");
    }
    for pod in &served.pods {
        served.scene.kubelet().sync(pod).await?;
    }
    super::agents::killed_and_replaced(&served).await?;
    readers.read_on(200).await?;
    let outcome = served.judged(readers)?;
    std::fs::remove_file(&filler)?;
    served.scene.publish(&pod).await.context("with room again")?;
    served.scene.stop(&pod).await?;
    served.stop().await?;
    Ok(outcome.noting(if refused.is_err() {
        "a publish is refused until there is room"
    } else {
        ""
    }))
}

fn fill(path: &Path) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    for size in [1 << 20, 4_096, 1] {
        let bytes = vec![0; size];
        while file.write_all(&bytes).is_ok() {}
    }
    Ok(())
}

pub(crate) async fn of_locked_memory() -> anyhow::Result<Outcome> {
    let scrape = metrics::free_address()?;
    let settings = StoreSettings::edited(move |config| {
        config["metrics"]["address"] = scrape.to_string().into();
    });
    let served = Served::start(Scene::embedded_with(settings).await?, 2, &[]).await?;
    anyhow::ensure!(unlocked(scrape).await? == 0, "degraded before it is limited");
    let readers = served.readers(2)?;
    // Of its own user, who may lower the limits of what is its own.
    let supervisor = served.scene.node().agent().pid();
    let user = may_become(AGENT_ID).then_some((AGENT_ID, AGENT_ID));
    let limits = [format!("--pid={supervisor}"), "--memlock=65536:65536".to_owned()];
    let prlimit = Program::new("prlimit", "/usr/bin/prlimit").user(user).arguments(limits);
    let limited = Running::start(prlimit).await?.wait(Duration::from_secs(5)).await?;
    anyhow::ensure!(limited.success(), "prlimit: {limited}");
    super::agents::killed_and_replaced(&served).await?;
    let worker = served.scene.node().worker().context("no worker")?;
    let limit = procfs::limit(worker, "Max locked memory");
    anyhow::ensure!(limit == Some(64 << 10), "{limit:?}");
    let log = served.scene.node().agent().log().text();
    anyhow::ensure!(log.contains("less than the configuration asks for"), "it says nothing: {log}");
    let large = "x".repeat(256 << 10);
    served.scene.write("payments/checkout/large", json!({"a": large})).await?;
    served.scene.class("large", &object("a", "large"))?;
    let pod = served.scene.pod("large-0", "checkout", "large");
    let target = served.scene.publish(&pod).await?;
    anyhow::ensure!(std::fs::read_to_string(target.join("a"))? == large);
    let unlocked = unlocked(scrape).await?;
    anyhow::ensure!(unlocked > 0, "no metric tells");
    readers.read_on(100).await?;
    let outcome = served.judged(readers)?;
    served.scene.stop(&pod).await?;
    served.stop().await?;
    Ok(outcome.noting(format!(
        "{unlocked} volumes in unlocked memory, by metric; swap is the machine's and not turned on here"
    )))
}

/// How many pieces of memory with values are neither locked nor secret.
async fn unlocked(scrape: std::net::SocketAddr) -> anyhow::Result<u64> {
    let line = "sotto_secret_mappings{protection=\"unlocked\"} ";
    let text = metrics::scrape(scrape).await?;
    let told = text.lines().find_map(|it| it.strip_prefix(line)?.parse::<f64>().ok());
    Ok(told.context("no such metric")? as u64)
}

pub(crate) async fn keep_a_secret_in() -> anyhow::Result<Outcome> {
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let scene = &served.scene;
    scene.write("payments/checkout/canary", json!({"a": CANARY})).await?;
    scene.class("canary", &object("p", "canary"))?;
    let pod = scene.pod("checkout-0", "checkout", "canary");
    let target = scene.publish(&pod).await?;
    scene.kubelet().republish(&pod, &pod.volumes[0]).await?;
    let node = scene.node();
    for (who, pid) in [("driver", node.csi().pid()), ("supervisor", node.agent().pid())] {
        anyhow::ensure!(in_memory(pid, CANARY.as_bytes())? == 0, "the {who} has the value");
    }
    anyhow::ensure!(
        in_memory(std::process::id(), CANARY.as_bytes())? > 0,
        "the search finds nothing"
    );
    let worker = node.worker().context("no worker")?;
    for pid in [node.csi().pid(), node.agent().pid(), worker] {
        anyhow::ensure!(procfs::limit(pid, "Max core file size") == Some(0), "{pid} may dump core");
    }
    procfs::signal(worker, Signal::ABORT)?;
    until("another worker", || scene.node().worker().is_some_and(|it| it != worker)).await?;
    anyhow::ensure!(std::fs::read_to_string(target.join("p"))? == CANARY);
    for needle in [CANARY, "eyJ"] {
        let found = in_files(&node.path("run"), needle)?;
        anyhow::ensure!(found.is_empty(), "{needle} is in {found:?}");
        for process in [node.csi(), node.agent()] {
            let error = process.log().lines(Stream::Error).join("\n");
            let output = process.log().lines(Stream::Output).join("\n");
            anyhow::ensure!(
                !error.contains(needle) && !output.contains(needle),
                "{needle} in a log"
            );
        }
    }
    anyhow::ensure!(!in_files(&node.path("run"), &pod.uid)?.is_empty(), "the journal wasn't read");
    scene.stop(&pod).await?;
    Ok(Outcome::held().noting("abort: no core, served on"))
}

fn in_files(directory: &Path, needle: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(in_files(&path, needle)?);
        } else if path.is_file() && String::from_utf8_lossy(&std::fs::read(&path)?).contains(needle)
        {
            found.push(path);
        }
    }
    Ok(found)
}
