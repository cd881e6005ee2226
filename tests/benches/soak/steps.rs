//! The steps, each by chance, and the volumes that show pairs of files.
//!
//! Model: a pair shows what it was last told to, whatever the store has by now.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sotto_dev::bao::Bao;
use sotto_dev::kubelet::Pod;
use sotto_tests::chance::Chance;
use sotto_tests::procfs;
use sotto_tests::scene::Scene;
use sotto_tests::served::{NAMES, Served, are_served, is_gone};
use sotto_tests::wait::until;

use crate::leased::Leased;
use crate::look::{Left, Look, logins};
use crate::say;

/// Volumes of each kind at one time.
const MOST: usize = 24;
const MOST_LEASED: usize = 8;
/// How often it is said what there is.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// For the store to revoke what was lost with a container that was killed: its login's life, and then some.
const REVOKED_WITHIN: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Steps {
    published: usize,
    leased: usize,
    unpublished: usize,
    rotated: usize,
    killed: usize,
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, leased, unpublished, rotated, killed } = self;
        write!(
            f,
            "{published} published and {leased} with leases, {unpublished} unpublished, {rotated} rotated, {killed} kills"
        )
    }
}

pub(crate) struct Soak {
    served: Served<Bao>,
    leased: Leased,
    chance: Chance,
    next: usize,
    /// What each volume of a pair shows, in the order of the pods.
    shown: Vec<String>,
    pub(crate) steps: Steps,
    /// Whether there are any still.
    pub(crate) kills: bool,
    /// Logins that are not of pods.
    own_logins: usize,
    /// When it was last said what there is.
    told: Instant,
}

impl Soak {
    pub(crate) async fn start(chance: Chance) -> anyhow::Result<Self> {
        let scene = Scene::openbao().await?;
        let leased = Leased::start(&scene).await?;
        let own_logins = logins(scene.store()).await?;
        let served = Served::start(scene, 0, &[]).await?;
        let (shown, steps, told) = (Vec::new(), Steps::default(), Instant::now());
        Ok(Self { served, leased, chance, next: 0, shown, steps, kills: true, own_logins, told })
    }

    pub(crate) async fn go_on_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            let (pairs, leased) = (self.served.pods.len(), self.leased.pods.len());
            match self.chance.below(100) {
                0..30 if pairs < MOST => self.publish().await.context("a publish")?,
                30..40 if leased < MOST_LEASED => self.lease().await.context("a leased one")?,
                40..67 if pairs > 0 => self.unpublish().await.context("an unpublish")?,
                67..75 if leased > 0 => self.revoke().await.context("a leased one's unpublish")?,
                75..95 if pairs > 0 => self.rotate().await.context("a rotation")?,
                95..100 if self.kills => self.kill().await.context("a kill")?,
                _ if pairs < MOST => self.publish().await.context("a publish")?,
                _ => self.unpublish().await.context("an unpublish")?,
            }
            self.check_one().await?;
            if self.told.elapsed() >= TOLD_EVERY {
                self.told = Instant::now();
                say(&format!("{pairs:2} and {leased} volumes     {}", self.seen().await?));
            }
        }
        Ok(())
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        self.next += 1;
        let pod = self.served.pod(self.next, &[("sotto.dev/refresh", "1h")]);
        let target = self.served.scene.publish(&pod).await?;
        let now = self.served.current();
        self.served.pods.push(pod);
        self.served.targets.push(target);
        self.shown.push(now);
        self.steps.published += 1;
        Ok(())
    }

    async fn lease(&mut self) -> anyhow::Result<()> {
        self.next += 1;
        self.leased.publish(&self.served.scene, self.next).await?;
        self.steps.leased += 1;
        Ok(())
    }

    async fn unpublish(&mut self) -> anyhow::Result<()> {
        let at = self.chance.below(self.served.pods.len());
        let pod = self.served.pods.swap_remove(at);
        let target = self.served.targets.swap_remove(at);
        self.shown.swap_remove(at);
        self.served.scene.stop(&pod).await?;
        ensure!(is_gone(&target)?, "{} is left", target.display());
        self.steps.unpublished += 1;
        Ok(())
    }

    async fn revoke(&mut self) -> anyhow::Result<()> {
        let at = self.chance.below(self.leased.pods.len());
        self.leased.unpublish(&self.served.scene, at).await?;
        self.steps.unpublished += 1;
        Ok(())
    }

    /// One volume turns, the others don't ask for an hour.
    async fn rotate(&mut self) -> anyhow::Result<()> {
        let at = self.chance.below(self.served.pods.len());
        self.served.pods.swap(0, at);
        self.served.targets.swap(0, at);
        self.shown.swap(0, at);
        self.shown[0] = self.served.turn().await?;
        self.steps.rotated += 1;
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.steps.killed += 1;
        match self.chance.below(3) {
            0 => drop(self.served.scene.node().kill_worker()?),
            1 => self.kill_agent().await?,
            _ => self.served.scene.node_mut().restart_csi().await?,
        }
        self.all_served().await?;
        for at in 0..self.served.pods.len() {
            self.check(at).await?;
        }
        self.leased.check_all().await.map(drop)
    }

    /// Its successor logs in and fetches anew, and turns to what it finds.
    async fn kill_agent(&mut self) -> anyhow::Result<()> {
        let users = self.leased.check_all().await?;
        self.served.scene.node().agent().kill().await?;
        self.served.scene.node_mut().restart_agent().await?;
        self.all_served().await?;
        let now = self.served.current();
        self.served.all_show(&now).await?;
        self.shown.iter_mut().for_each(|shown| shown.clone_from(&now));
        self.leased.all_show_others_than(&users).await
    }

    async fn all_served(&self) -> anyhow::Result<()> {
        let pods: Vec<&Pod> = self.served.pods.iter().chain(&self.leased.pods).collect();
        are_served(&self.served.scene, &pods).await
    }

    async fn check_one(&mut self) -> anyhow::Result<()> {
        let (pairs, leased) = (self.served.pods.len(), self.leased.pods.len());
        match self.chance.below((pairs + leased).max(1)) {
            at if at < pairs => self.check(at).await,
            at if at - pairs < leased => self.leased.check(at - pairs).await.map(drop),
            _ => Ok(()),
        }
    }

    async fn check(&self, at: usize) -> anyhow::Result<()> {
        for name in NAMES {
            let file = self.served.targets[at].join(name);
            let seen = sotto_tests::files::read(file.clone()).await;
            let seen = seen.with_context(|| file.display().to_string())?;
            let (wanted, seen) = (&self.shown[at][..9], &seen[..seen.len().min(9)]);
            ensure!(wanted == seen, "{} shows {seen}, not {wanted}", file.display());
        }
        Ok(())
    }

    /// Takes every volume away, and looks at what is there.
    pub(crate) async fn look(&mut self) -> anyhow::Result<Look> {
        self.sees_what_there_is().await?;
        while !self.served.pods.is_empty() {
            self.unpublish().await?;
        }
        while !self.leased.pods.is_empty() {
            self.revoke().await?;
        }
        let driver = self.served.scene.node().csi().pid();
        until("an end of the driver's helpers", || procfs::children(driver).is_empty()).await?;
        let end = Instant::now() + REVOKED_WITHIN;
        loop {
            let left = self.left().await?;
            if left == Left::NOTHING {
                return Look::at(&self.served.scene, left);
            }
            if Instant::now() >= end {
                bail!("{left} are left after {REVOKED_WITHIN:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Each volume has a login, each leased one a lease and a role: a blind look would find nothing at the end either.
    async fn sees_what_there_is(&mut self) -> anyhow::Result<()> {
        if self.leased.pods.is_empty() {
            self.lease().await?;
        }
        let (pairs, leased) = (self.served.pods.len(), self.leased.pods.len());
        let there = self.left().await?;
        let sees = there.logins >= pairs + leased && there.leases >= leased;
        ensure!(sees && there.roles >= leased, "{pairs} and {leased} volumes, but {there}");
        Ok(())
    }

    async fn left(&self) -> anyhow::Result<Left> {
        let store = self.served.scene.store();
        Left::at(store, &self.leased.postgres, self.own_logins).await
    }

    async fn seen(&self) -> anyhow::Result<Look> {
        Look::at(&self.served.scene, self.left().await?)
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.served.stop().await?;
        Ok(self.leased.postgres.end().await?)
    }
}
