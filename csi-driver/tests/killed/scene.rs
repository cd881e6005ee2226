//! A machine, its mini agent, the driver that ends too soon, and the one that comes after it: kubelet sends the
//! same request again, and everything is as if nothing had happened.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use sotto_csi::mount;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::agent::Agent;
use crate::behaviour::Behaviour;
use crate::driver_process::{DriverProcess, log};
use crate::machine::{Machine, PATIENCE, eventually};
use crate::moment::Moment;
use crate::victim::{Deed, POD, ROLE, VOLUME};

const SIGKILL: i32 = 9;
/// A seccomp filter's.
const SIGSYS: i32 = 31;
/// A volume whose mount was dead is mounted afresh by one of kubelet's next calls.
const REPUBLISHES: usize = 5;

pub(crate) struct Scene {
    pub(crate) machine: Machine,
    pub(crate) agent: Agent,
    /// Files that a driver has open when it has nothing to do.
    idle_files: usize,
    /// Mounts without a holder that lie beneath the volume's.
    pub(crate) dead: usize,
}

/// Longer than any thread of the driver needs to have nothing to do.
const THINKS: Duration = Duration::from_millis(20);

/// How many files a driver has open when no volume is left.
pub(crate) async fn idle_files() -> usize {
    let machine = Machine::new();
    let process = DriverProcess::started(&machine).await;
    let agent = Agent::connected(&machine.run_dir(), "0", Behaviour::default()).await;
    machine.publish(VOLUME, POD, "token").await.unwrap();
    machine.unpublish(VOLUME, POD).await.unwrap();
    agent.disconnect().await;
    agent.connect(&machine.run_dir()).await;
    let mut least = usize::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        least = least.min(process.files());
    }
    least
}

impl Scene {
    /// A machine without a driver, and the driver that is going to end, with its agent.
    pub(crate) async fn with_victim(
        idle_files: usize,
        deed: Deed,
        moment: Moment,
    ) -> (Self, Victim) {
        Self::on(Machine::new(), 0, idle_files, deed, moment).await
    }

    /// The same on a machine on which something was mounted already.
    pub(crate) async fn on(
        machine: Machine,
        dead: usize,
        idle_files: usize,
        deed: Deed,
        moment: Moment,
    ) -> (Self, Victim) {
        drop(machine.request(VOLUME, POD, "")); // kubelet's directories
        let victim = Victim::started(&machine, deed, moment).await;
        // An answer that is there at once leaves no pause to be killed in.
        let thinks = if matches!(moment, Moment::Idle(_)) { THINKS } else { Duration::ZERO };
        let behaviour = Behaviour { thinks, ..Behaviour::default() };
        let agent = Agent::connected(&machine.run_dir(), "a", behaviour).await;
        (Self { machine, agent, idle_files, dead }, victim)
    }

    /// The next driver, with the same agent.
    pub(crate) async fn next_driver(&self) -> DriverProcess {
        let process = DriverProcess::started(&self.machine).await;
        self.agent.connect(&self.machine.run_dir()).await;
        process
    }

    /// Kubelet publishes (again): one mount, of this volume, served, held, and known.
    pub(crate) async fn one(&self, process: &DriverProcess) {
        let machine = &self.machine;
        let mut served = String::new();
        for _ in 0..REPUBLISHES {
            let answer = machine.publish(VOLUME, POD, "third").await;
            answer.unwrap_or_else(|error| panic!("{error}: {}", log(machine)));
            served = machine.who_serves(POD).await.unwrap_or_else(|error| error.to_string());
            if served == "a" {
                break;
            }
        }
        assert_eq!(served, "a", "{}", log(machine));
        let mounts = machine.mounts();
        let own = |it| mount::volume_of(it).is_some_and(|id| id.as_str() == VOLUME);
        assert!(mounts.iter().all(own), "{mounts:?}");
        assert!((1..=1 + self.dead).contains(&mounts.len()), "{mounts:?}");
        assert_eq!(machine.journal(), [format!("{VOLUME}.json")]);
        eventually("the driver holds the volume", || process.devices() == 1).await;
        assert_eq!(self.agent.serves(), 1);
    }

    /// Kubelet unpublishes (again): nothing is left of the volume, nor of the drivers before.
    pub(crate) async fn none(&self, process: &DriverProcess) {
        let machine = &self.machine;
        machine.unpublish(VOLUME, POD).await.unwrap();
        nothing_is_left(machine);
        assert_eq!(process.devices(), 0);
        eventually("the agent serves nothing", || self.agent.serves() == 0).await;
        let mut files = 0;
        let settled = async {
            while files != self.idle_files {
                tokio::time::sleep(Duration::from_millis(10)).await;
                files = process.files();
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        assert!(settled.is_ok(), "{files} files are open, not {}", self.idle_files);
        eventually("every process of the machine has ended", || {
            processes(machine).iter().all(|id| *id == process.id())
        })
        .await;
    }
}

/// Neither mount nor directory nor entry.
pub(crate) fn nothing_is_left(machine: &Machine) {
    assert_eq!(machine.mounts(), []);
    assert_eq!(machine.journal(), Vec::<String>::new());
    assert!(!machine.target(POD).exists());
    assert!(machine.target(POD).parent().unwrap().exists(), "kubelet's part stays");
}

/// Processes whose command line names the machine: its drivers and their helpers, those in D state too.
fn processes(machine: &Machine) -> Vec<u32> {
    let name = machine.path("").display().to_string();
    let name = name.trim_end_matches('/').as_bytes();
    let names_it = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.windows(name.len()).any(|part| part == name)
    };
    let ids = std::fs::read_dir("/proc").unwrap();
    ids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(names_it)
        .collect()
}

/// A driver that is about to end.
pub(crate) struct Victim {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) status: ExitStatus,
    /// If its call ended first: await points, microseconds, result.
    pub(crate) done: Option<(u64, u64, String)>,
}

impl Victim {
    async fn started(machine: &Machine, deed: Deed, moment: Moment) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(machine.path("log"));
        let mut child = Command::new("/proc/self/exe")
            .args([ROLE, deed.word()])
            .args(moment.words())
            .arg(machine.target(POD))
            .args(machine.command_line())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let socket = machine.path("kubelet/plugins_registry/csi.sotto.dev-reg.sock");
        eventually("the driver starts", || {
            assert!(child.try_wait().unwrap().is_none(), "{}", crate::driver_process::log(machine));
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
        .await;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// From now on its moment is counted.
    pub(crate) async fn arm(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        // It may die before it can say so.
        let _ = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("it is armed");
    }

    /// Whether it ends within `patience`.
    pub(crate) async fn ends(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.child.wait()).await.is_ok()
    }

    /// Kills it, if it lives.
    pub(crate) async fn killed(mut self) {
        let killed = tokio::time::timeout(PATIENCE, self.child.kill()).await;
        killed.expect("the driver ends").unwrap();
    }

    /// Waits for its end: a process that hangs in the kernel has none.
    pub(crate) async fn fate(mut self) -> Fate {
        let mut done = None;
        let ended = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let mut words = line.splitn(4, ' ').skip(1);
                let mut number = || words.next()?.parse().ok();
                if let (Some(points), Some(took)) = (number(), number()) {
                    done = Some((points, took, words.next().unwrap_or_default().to_owned()));
                }
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, ended).await.expect("the driver ends");
        Fate { status, done }
    }
}

impl Fate {
    /// Whether it was killed as it should be.
    pub(crate) fn is_killed(&self) -> bool {
        matches!(self.status.signal(), Some(SIGKILL | SIGSYS))
    }
}
