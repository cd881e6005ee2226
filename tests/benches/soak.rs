//! `make soak MINUTES=30`: publishes, rotations, kills and unpublishes at random against a model; nothing grows: fds,
//! threads, memory, mounts, journal, logins at the store.
//!
//! The model is what each volume has to show; every step is followed by a look at one volume, and every
//! kill by a look at all. After the last third, in which nothing is killed, the same processes are looked at as
//! before it: what a process gathers over its life would otherwise end with it. `SEED=` repeats a run.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use sotto_dev::store::{DevStore, ROLE, Role};
use sotto_tests::chance::Chance;
use sotto_tests::procfs;
use sotto_tests::scene::Scene;
use sotto_tests::served::Served;
use sotto_tests::wait::until;

/// Volumes at one time.
const MOST: usize = 30;
/// Part of the time after which what is there counts as normal.
const WARM_UP: f64 = 0.2;
/// Part of the time after which nothing is killed any more.
const QUIET: f64 = 0.6;
/// How often it is said what there is.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// A login that is lost with a container that was killed ends so soon.
const LOGIN_TTL: Duration = Duration::from_secs(15);
/// What a process may grow by between two looks: pools of threads and connections, an allocator's.
const FDS: usize = 8;
const THREADS: usize = 8;
const MEMORY_KIB: u64 = 16 << 10;

fn main() -> ExitCode {
    // Nobody installs another one in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let minutes = std::env::var("MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let seed = Chance::seed();
    say(&format!("soak: {minutes} min, SEED={seed}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let soaked = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(soak(Duration::from_secs_f64(minutes * 60.0), Chance::of(seed)))
    });
    match soaked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("soak: {error:#} (SEED={seed})"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the numbers are this program's result")]
fn say(text: &str) {
    println!("{text}");
}

async fn soak(duration: Duration, chance: Chance) -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let role = Role { token_ttl: LOGIN_TTL, ..Role::of_namespace("payments") };
    scene.store().put_role("jwt", ROLE, role);
    let served = Served::start(scene, 0, &[]).await?;
    let (shown, steps, told) = (Vec::new(), Steps::default(), Instant::now());
    let mut soak = Soak { served, chance, next: 0, shown, steps, kills: true, told };
    let begun = Instant::now();
    soak.go_on_until(begun + duration.mul_f64(WARM_UP)).await?;
    let before = soak.look().await?;
    say(&format!("after the warm-up    {before}"));
    soak.go_on_until(begun + duration.mul_f64(QUIET)).await?;
    let killed = soak.look().await?;
    say(&format!("after the last kill  {killed}"));
    killed.compared_with(&before)?;
    soak.kills = false;
    // What a new process has once for all.
    soak.go_on_until(Instant::now() + duration.mul_f64(WARM_UP / 4.0)).await?;
    let settled = soak.look().await?;
    say(&format!("the same, settled    {settled}"));
    soak.go_on_until(begun + duration).await?;
    let after = soak.look().await?;
    say(&format!("at the end           {after}"));
    say(&format!("steps                {}", soak.steps));
    after.are_the_processes_of(&settled)?;
    after.compared_with(&settled)?;
    soak.served.stop().await
}

#[derive(Debug, Default)]
struct Steps {
    published: usize,
    unpublished: usize,
    rotated: usize,
    killed: usize,
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, unpublished, rotated, killed } = self;
        write!(
            f,
            "{published} published, {unpublished} unpublished, {rotated} rotated, {killed} kills"
        )
    }
}

struct Soak {
    served: Served<DevStore>,
    chance: Chance,
    next: usize,
    /// What each volume shows, in the order of the pods.
    shown: Vec<String>,
    steps: Steps,
    /// Whether there are any still.
    kills: bool,
    /// When it was last said what there is.
    told: Instant,
}

impl Soak {
    async fn go_on_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            let volumes = self.served.pods.len();
            match self.chance.below(100) {
                0..40 if volumes < MOST => self.publish().await.context("a publish")?,
                0..75 if volumes > 0 => self.unpublish().await.context("an unpublish")?,
                75..95 if volumes > 0 => self.rotate().await.context("a rotation")?,
                95..100 if self.kills => self.kill().await.context("a kill")?,
                _ if volumes < MOST => self.publish().await.context("a publish")?,
                _ => self.unpublish().await.context("an unpublish")?,
            }
            self.check_one().await?;
            if self.told.elapsed() >= TOLD_EVERY {
                self.told = Instant::now();
                say(&format!("{volumes:2} volumes           {}", self.seen()?));
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

    async fn unpublish(&mut self) -> anyhow::Result<()> {
        let at = self.chance.below(self.served.pods.len());
        let pod = self.served.pods.swap_remove(at);
        let target = self.served.targets.swap_remove(at);
        self.shown.swap_remove(at);
        self.served.scene.stop(&pod).await?;
        anyhow::ensure!(sotto_tests::served::is_gone(&target)?, "{} is left", target.display());
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
            1 => {
                self.served.scene.node().agent().kill().await?;
                self.served.scene.node_mut().restart_agent().await?;
                // Its successor fetches anew, and turns to what it finds.
                let now = self.served.current();
                self.served.all_served().await?;
                self.served.all_show(&now).await?;
                self.shown.iter_mut().for_each(|shown| shown.clone_from(&now));
            }
            _ => self.served.scene.node_mut().restart_csi().await?,
        }
        self.served.all_served().await?;
        for at in 0..self.served.pods.len() {
            self.check(at).await?;
        }
        Ok(())
    }

    async fn check_one(&mut self) -> anyhow::Result<()> {
        match self.served.pods.len() {
            0 => Ok(()),
            volumes => {
                let at = self.chance.below(volumes);
                self.check(at).await
            }
        }
    }

    async fn check(&self, at: usize) -> anyhow::Result<()> {
        for name in sotto_tests::served::NAMES {
            let file = self.served.targets[at].join(name);
            let seen = sotto_tests::files::read(file.clone()).await;
            let seen = seen.with_context(|| file.display().to_string())?;
            let (wanted, seen) = (&self.shown[at][..9], &seen[..seen.len().min(9)]);
            anyhow::ensure!(wanted == seen, "{} shows {seen}, not {wanted}", file.display());
        }
        Ok(())
    }

    /// Takes every volume away, and looks at what is there.
    async fn look(&mut self) -> anyhow::Result<Look> {
        while !self.served.pods.is_empty() {
            self.unpublish().await?;
        }
        let (scene, node) = (&self.served.scene, self.served.scene.node());
        let helpers = || procfs::children(node.csi().pid()).is_empty();
        until("an end of the driver's helpers", helpers).await?;
        until("an end of every login", || scene.store().tokens() == 0).await?;
        self.seen()
    }

    fn seen(&self) -> anyhow::Result<Look> {
        let (scene, node) = (&self.served.scene, self.served.scene.node());
        let worker = node.worker().context("no worker")?;
        let machine = node.path("").display().to_string();
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let pids =
            [("driver", node.csi().pid()), ("supervisor", node.agent().pid()), ("worker", worker)];
        Ok(Look {
            processes: pids.map(|(name, pid)| Process {
                name,
                pid,
                fds: procfs::fds(pid),
                threads: procfs::threads(pid),
                memory_kib: procfs::resident_kib(pid),
            }),
            mounts: table.lines().filter(|line| line.contains(&machine)).count(),
            journal: std::fs::read_dir(node.path("run/volumes"))?.count(),
            logins: scene.store().tokens(),
        })
    }
}

struct Process {
    name: &'static str,
    pid: u32,
    fds: usize,
    threads: usize,
    memory_kib: u64,
}

/// What is there.
struct Look {
    processes: [Process; 3],
    mounts: usize,
    journal: usize,
    logins: usize,
}

impl Look {
    fn are_the_processes_of(&self, before: &Self) -> anyhow::Result<()> {
        let pids = |look: &Self| [0, 1, 2].map(|at| look.processes[at].pid);
        anyhow::ensure!(
            pids(self) == pids(before),
            "a process is another one, and none was killed"
        );
        Ok(())
    }

    fn compared_with(&self, before: &Self) -> anyhow::Result<()> {
        for (now, then) in self.processes.iter().zip(&before.processes) {
            let name = now.name;
            anyhow::ensure!(now.fds <= then.fds + FDS, "the {name}'s fds grew");
            anyhow::ensure!(now.threads <= then.threads + THREADS, "the {name}'s threads grew");
            let most = then.memory_kib + then.memory_kib / 4 + MEMORY_KIB;
            anyhow::ensure!(now.memory_kib <= most, "the {name}'s memory grew");
        }
        anyhow::ensure!(self.mounts == before.mounts, "mounts are left");
        anyhow::ensure!(self.journal == 0, "journal entries are left");
        anyhow::ensure!(self.logins == 0, "logins are left at the store");
        Ok(())
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Process { name, fds, threads, memory_kib, .. } in &self.processes {
            write!(
                f,
                "{name}: {fds} fds, {threads} threads, {:.1} MiB; ",
                *memory_kib as f64 / 1024.0
            )?;
        }
        let Self { mounts, journal, logins, .. } = self;
        write!(f, "{mounts} mounts, {journal} in the journal, {logins} logins")
    }
}
