//! A scene with pods that read: each has a volume of two files that are always written together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use serde_json::json;
use sotto_dev::kubelet::Pod;
use sotto_dev::test_store::TestStore;

use crate::files;
use crate::readers::{Readers, Seen};
use crate::scene::Scene;
use crate::table::Outcome;

/// The secret, below `secret/`.
pub const SECRET: &str = "payments/checkout/pair";
/// The files.
pub const NAMES: [&str; 2] = ["a", "b"];
const OBJECTS: &str = "\
    - {objectName: a, secretPath: secret/data/payments/checkout/pair, secretKey: a}\n\
    - {objectName: b, secretPath: secret/data/payments/checkout/pair, secretKey: b}";
/// Volumes that are published at one time.
const PARALLEL: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of each log, where reads failed.
const LINES_SHOWN: usize = 60;

/// A value that is longer than a page, so that one that is half of another is seen.
#[must_use]
pub fn value(number: usize) -> String {
    format!("{number:08}.").repeat(600)
}

/// Pods with a volume each.
pub struct Served<S> {
    /// Where they run.
    pub scene: Scene<S>,
    /// The pods.
    pub pods: Vec<Pod>,
    /// Their volumes.
    pub targets: Vec<PathBuf>,
    /// Pods whose secret never changes, and their volumes.
    pub fixed: Vec<(Pod, PathBuf)>,
    written: usize,
}

impl<S: TestStore> Served<S> {
    /// Writes the first value, and publishes so many volumes with these attributes.
    ///
    /// # Errors
    /// One isn't published.
    pub async fn start(
        scene: Scene<S>,
        volumes: usize,
        attributes: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let (pods, targets, fixed) = (Vec::new(), Vec::new(), Vec::new());
        let mut served = Self { scene, pods, targets, fixed, written: 0 };
        served.write().await?;
        served.scene.class("pair", OBJECTS)?;
        served.pods = (0..volumes).map(|number| served.pod(number, attributes)).collect();
        let published = served.pods.iter().map(|pod| served.scene.publish(pod));
        let published: Vec<_> = futures::stream::iter(published).buffered(PARALLEL).collect().await;
        served.targets = published.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(served)
    }

    /// Publishes so many volumes more, of a secret that is [`value`] 0 for ever.
    ///
    /// # Errors
    /// One isn't published.
    pub async fn and_fixed(
        mut self,
        volumes: usize,
        attributes: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let (secret, fixed) = ("payments/checkout/fixed", value(0));
        self.scene.write(secret, json!({"a": fixed, "b": fixed})).await?;
        self.scene.class("fixed", &OBJECTS.replace(SECRET, secret))?;
        for number in 0..volumes {
            let mut pod = self.pod(number, attributes);
            pod.name = format!("fixed-{number}");
            pod.volumes[0].attributes.insert("secretProviderClass".to_owned(), "fixed".to_owned());
            let target = self.scene.publish(&pod).await?;
            self.fixed.push((pod, target));
        }
        Ok(self)
    }

    fn all_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().chain(self.fixed.iter().map(|(pod, _)| pod))
    }

    /// The files that never change.
    #[must_use]
    pub fn fixed_files(&self) -> Vec<PathBuf> {
        self.fixed.iter().flat_map(|(_, target)| NAMES.map(|name| target.join(name))).collect()
    }

    /// Another pod of the same kind, not published.
    #[must_use]
    pub fn pod(&self, number: usize, attributes: &[(&str, &str)]) -> Pod {
        let mut pod = self.scene.pod(&format!("checkout-{number}"), "checkout", "pair");
        for (key, value) in attributes {
            pod.volumes[0].attributes.insert((*key).to_owned(), (*value).to_owned());
        }
        pod
    }

    /// Writes the next value; returns it.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn write(&mut self) -> anyhow::Result<String> {
        let next = value(self.written + 1);
        self.scene.write(SECRET, json!({"a": next, "b": next})).await?;
        self.written += 1;
        Ok(next)
    }

    /// The value that was written last.
    #[must_use]
    pub fn current(&self) -> String {
        value(self.written)
    }

    /// Has the first volume turn to the next value; returns it.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn turn(&mut self) -> anyhow::Result<String> {
        let next = self.write().await?;
        let (is_good, lines) = self.scene.node().refresh(&self.pods[0]).await?;
        anyhow::ensure!(is_good, "it did not turn: {lines:?}");
        Ok(next)
    }

    /// Every file.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.targets.iter().flat_map(|target| NAMES.map(|name| target.join(name))).collect()
    }

    /// Threads that read all files.
    ///
    /// # Errors
    /// A file can't be opened.
    pub fn readers(&self, threads: usize) -> anyhow::Result<Readers> {
        Ok(Readers::start(threads, self.files())?)
    }

    /// Threads that read the files of a volume together.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn readers_of_pairs(&self, threads: usize, pause: Duration) -> anyhow::Result<Readers> {
        Ok(Readers::of_pairs(threads, &self.targets, NAMES, pause)?)
    }

    /// Waits until the driver has every connection and each volume has its agent.
    ///
    /// # Errors
    /// One hasn't.
    pub async fn all_served(&self) -> anyhow::Result<()> {
        let pods: Vec<&Pod> = self.all_pods().collect();
        are_served(&self.scene, &pods).await
    }

    /// Waits until each volume shows this value.
    ///
    /// # Errors
    /// One doesn't.
    pub async fn all_show(&self, value: &str) -> anyhow::Result<()> {
        let shown = async {
            for file in self.files() {
                let told = || format!("{}{}", file.display(), self.last_lines());
                while files::read(file.clone()).await.with_context(told)? != value {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, shown).await.context("a volume never shows the value")?
    }

    /// What the kernel says about each mount, to be compared.
    ///
    /// # Errors
    /// One isn't there.
    pub fn mounts(&self) -> anyhow::Result<Vec<String>> {
        let fixed = self.fixed.iter().map(|(_, target)| target);
        self.targets.iter().chain(fixed).map(|target| files::mount_line(target)).collect()
    }

    /// Ends the readers: none has failed, and each value is one that was written.
    ///
    /// # Errors
    /// The first few that failed.
    pub fn judged(&self, readers: Readers) -> anyhow::Result<Outcome> {
        let stall = readers.seen().take_longest();
        self.judge(&readers.stop())?;
        Ok(Outcome::read(stall))
    }

    /// As [`Self::judged`], for readers that were ended.
    ///
    /// # Errors
    /// The first few that failed.
    pub fn judge(&self, seen: &Seen) -> anyhow::Result<()> {
        let failures = seen.failures();
        anyhow::ensure!(failures.is_empty(), "reads failed: {failures:#?}{}", self.last_lines());
        anyhow::ensure!(seen.reads() > 0, "nobody read");
        let written: Vec<String> = (0..=self.written).map(value).collect();
        let torn = seen.values().into_iter().find(|value| !written.contains(value));
        let short = |text: String| text.chars().take(40).collect::<String>();
        torn.map_or(Ok(()), |torn| Err(anyhow::anyhow!("nobody wrote {}", short(torn))))
    }

    /// The last lines of both processes, opens left out.
    pub fn last_lines(&self) -> String {
        let (csi, agent) = (self.scene.node().csi().log(), self.scene.node().agent().log());
        let without_opens = |text: String| {
            let kept = text.lines().filter(|line| !line.contains("\"action\":\"open\""));
            let mut last: Vec<&str> = kept.rev().take(LINES_SHOWN).collect();
            last.reverse();
            last.join("\n  ")
        };
        format!(
            "\nsotto-csi:\n  {}\nsotto-node:\n  {}",
            without_opens(csi.text()),
            without_opens(agent.text())
        )
    }

    /// Unpublishes everything; nothing is left.
    ///
    /// # Errors
    /// Something is.
    pub async fn stop(self) -> anyhow::Result<()> {
        for pod in self.all_pods() {
            self.scene.stop(pod).await?;
        }
        for target in self.targets.iter().chain(self.fixed.iter().map(|(_, target)| target)) {
            anyhow::ensure!(is_gone(target)?, "{} is left", target.display());
        }
        Ok(())
    }
}

/// Waits until the driver has every connection and the volume of each of these pods has its agent.
///
/// # Errors
/// One hasn't.
pub async fn are_served<S: TestStore>(scene: &Scene<S>, pods: &[&Pod]) -> anyhow::Result<()> {
    let kubelet = scene.kubelet();
    let served = async {
        for pod in pods {
            loop {
                let stats = kubelet.stats(pod, &pod.volumes[0]).await;
                let condition = stats.ok().and_then(|stats| stats.volume_condition);
                if condition.is_some_and(|condition| condition.message == "served") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        while !kubelet.driver_is_ready().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.context("a volume is not served again")
}

/// Whether neither a mount nor a directory is left. Lists the parent: the stat of an unserved mount hangs.
///
/// # Errors
/// The mount table can't be read.
pub fn is_gone(target: &Path) -> anyhow::Result<bool> {
    let parent = target.parent().context("a target has a parent")?;
    let name = target.file_name();
    let listed = std::fs::read_dir(parent).into_iter().flatten().flatten();
    Ok(files::mounts_at(target)? == 0
        && !listed.into_iter().any(|it| Some(it.file_name().as_os_str()) == name))
}
