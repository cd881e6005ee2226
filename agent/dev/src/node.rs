//! One machine: a kubelet, sotto-csi and sotto-node as processes of their own, each with the user and the
//! directories that a cluster gives it.
//!
//! Invariant: nothing outlives it: no process, no mount, no file. Where this process may, sotto-node runs as
//! uid 65532 without capabilities; where the user namespace has one uid only, it keeps that, and
//! [`Node::kept_privileges`] says so.

mod alone;
mod asking;
mod binaries;
mod cgroup;
mod config;
mod inject;
mod injected;
mod machine;
mod projected;
mod settings;
mod surge;
mod user;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

pub use binaries::{Binaries, NotBuilt};
pub use config::StoreEntry;
pub use injected::{HANDOFF, Injected, Restart, SECRETS, restart_delay};
pub use machine::MachineError;
pub use settings::{NodeError, NodeSettings};
pub use surge::Successor;
pub use user::{AGENT_ID, is_mapped, may_become};

use crate::kubelet::{Kubelet, KubeletSettings};
use crate::process::{Line, Program, Running, Stream};
use cgroup::Cgroups;
use config::Places;
use machine::Machine;

const START_DEADLINE: Duration = Duration::from_secs(20);
/// What the driver logs (at `info`) when an agent has connected: nothing else shows it from outside.
///
/// Not only the words: that "no sotto-node is connected" is a line of its own.
const CONNECTED: &str = "\"message\":\"sotto-node is connected\"";

/// A running machine. Its processes end before its mounts do.
pub struct Node {
    kubelet: Arc<Kubelet>,
    csi: Running,
    agent: Running,
    settings: NodeSettings,
    machine: Machine,
    cgroups: Option<Cgroups>,
}

impl Node {
    /// Starts one, and waits until the driver is registered and the agent connected to it.
    ///
    /// # Errors
    /// What is in the way, with the last lines of whoever failed.
    pub async fn start(settings: NodeSettings) -> Result<Self, NodeError> {
        let machine = match &settings.binaries {
            Some(directory) => Machine::new(directory)?,
            None => Machine::new(&Binaries::find()?.directory)?,
        };
        write_files(&machine, &settings)?;
        let mut of_kubelet = KubeletSettings::new(
            machine.path("kubelet"),
            machine.path("csi.sock"),
            &settings.name,
            settings.driver.clone(),
            settings.issuer.clone(),
        );
        of_kubelet.more_drivers.extend(settings.sidecar_driver.clone());
        let kubelet = Kubelet::new(of_kubelet);
        let csi = Running::start(csi_program(&machine, &settings)).await?;
        tokio::select! {
            registered = kubelet.register(START_DEADLINE) => { registered?; }
            ended = csi.line("its registration", START_DEADLINE, |_| false) => { ended?; }
        }
        let agent =
            Running::start(agent_program(&machine, &settings, asking::admin(&machine))).await?;
        let (kubelet, cgroups) = (Arc::new(kubelet), Cgroups::new());
        let node = Self { kubelet, csi, agent, settings, machine, cgroups };
        node.connected(0).await?;
        Ok(node)
    }

    async fn new_agent(&self, admin: String) -> Result<Running, NodeError> {
        Ok(Running::start(agent_program(&self.machine, &self.settings, admin)).await?)
    }

    /// Waits until the driver says once more that an agent is connected.
    async fn connected(&self, before: usize) -> Result<(), NodeError> {
        let once_more = self.csi.log().until(|lines| (connections(lines) > before).then_some(()));
        tokio::select! {
            () = once_more => {}
            // Neither says what is awaited: both end with their last lines, or at the deadline.
            ended = self.csi.line("sotto-node's connection", START_DEADLINE, |_| false) => {
                ended?;
            }
            ended = self.agent.wait(START_DEADLINE) => {
                ended?;
                self.agent.line("its connection to sotto-csi", START_DEADLINE, |_| false).await?;
            }
        }
        Ok(())
    }

    /// Its kubelet.
    #[must_use]
    pub fn kubelet(&self) -> &Arc<Kubelet> {
        &self.kubelet
    }

    /// The driver's process.
    #[must_use]
    pub fn csi(&self) -> &Running {
        &self.csi
    }

    /// The agent's process.
    #[must_use]
    pub fn agent(&self) -> &Running {
        &self.agent
    }

    /// The agent's worker, as long as one is there: the agent's process is its supervisor.
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        let pid = self.agent.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Kills the agent's worker; its supervisor lives on.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_worker(&self) -> Result<u32, NodeError> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the agent has no worker");
        let worker = self.worker().ok_or_else(none)?;
        let pid = i32::try_from(worker).ok().and_then(Pid::from_raw).ok_or_else(none)?;
        rustix::process::kill_process(pid, Signal::KILL).map_err(io::Error::from)?;
        Ok(worker)
    }

    /// A path on the machine, e.g. `classes/x.yaml`, `etc/jwks.json`, `run`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.machine.path(name)
    }

    /// Shows a volume where a container would see it; returns the path. `name` is relative to the machine.
    ///
    /// # Errors
    /// The mount was refused.
    pub fn show_in_container(&self, target: &Path, name: &str) -> Result<PathBuf, NodeError> {
        Ok(self.machine.bind(target, name)?)
    }

    /// Takes a container's mount back, as its end does.
    ///
    /// # Errors
    /// It isn't mounted.
    pub fn end_container(&self, at: &Path) -> Result<(), NodeError> {
        Ok(self.machine.unbind(at)?)
    }

    /// Starts the agent again, whether the old one has ended or not, and waits until it is connected. The
    /// old one is killed.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_agent(&mut self) -> Result<(), NodeError> {
        let before = self.csi.log().read(connections);
        self.agent = self.new_agent(asking::admin(&self.machine)).await?;
        self.connected(before).await
    }

    /// Starts the driver again, registers it, and waits until the agent is connected to it. The old one
    /// is killed first: two would take each other's sockets away.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_csi(&mut self) -> Result<(), NodeError> {
        self.csi.kill().await?;
        self.new_csi().await
    }

    async fn new_csi(&mut self) -> Result<(), NodeError> {
        self.csi = Running::start(csi_program(&self.machine, &self.settings)).await?;
        self.kubelet.register(START_DEADLINE).await?;
        self.connected(0).await
    }

    /// The audit records of the present agent, oldest first.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        self.agent.log().read(records)
    }

    /// Waits until the audit records satisfy a condition; returns them.
    ///
    /// # Errors
    /// They did not in time.
    pub async fn audited(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>, NodeError> {
        let found = self.agent.log().until(|lines| {
            let records = records(lines);
            condition(&records).then_some(records)
        });
        tokio::time::timeout(deadline, found).await.map_err(|_| {
            let records = self.agent.log().lines(Stream::Output).join("\n");
            NodeError::NoRecord(what.to_owned(), deadline, records)
        })
    }

    /// What is not as in a cluster here, in words: what the agents could not give up, what can't be played.
    #[must_use]
    pub fn kept_privileges(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !may_become(AGENT_ID) {
            notes.push(format!(
                "sotto-node keeps this process's uid instead of becoming {AGENT_ID}: \
                 the user namespace has no other"
            ));
        }
        if self.settings.sidecar_driver.is_some() && self.cgroups.is_none() {
            notes.push(
                "no cgroup can be made here: sidecars are known by their uid alone, and no process can be taken \
                 for one of another pod"
                    .to_owned(),
            );
        }
        notes
    }

    /// Ends the processes in order and checks that no mount is left. Pods must have been stopped.
    ///
    /// # Errors
    /// Something is left.
    pub async fn end(self) -> Result<(), NodeError> {
        let left: Vec<PathBuf> =
            self.machine.mounts().into_iter().filter(|it| *it != self.path("bin")).collect();
        self.csi.end().await?;
        self.agent.end().await?;
        if left.is_empty() { Ok(()) } else { Err(NodeError::Left(left)) }
    }
}

/// How often the driver has said that an agent is connected.
fn connections(lines: &[Line]) -> usize {
    lines.iter().filter(|line| line.text.contains(CONNECTED)).count()
}

/// The audit records among the agent's lines.
pub(crate) fn records(lines: &[Line]) -> Vec<Value> {
    let output = lines.iter().filter(|line| line.stream == Stream::Output);
    output.filter_map(|line| serde_json::from_str(&line.text).ok()).collect()
}

fn agent_user() -> Option<(u32, u32)> {
    may_become(AGENT_ID).then_some((AGENT_ID, AGENT_ID))
}

fn places(machine: &Machine) -> Places {
    Places {
        etc: machine.path("etc"),
        classes: machine.path("classes"),
        socket: machine.path("run/node.sock"),
    }
}

fn write_files(machine: &Machine, settings: &NodeSettings) -> io::Result<()> {
    let places = places(machine);
    for (name, content) in &settings.classes {
        std::fs::write(places.classes.join(name), content)?;
    }
    let mut value = config::value(&places, &settings.stores, &settings.issuer);
    (settings.edit)(&mut value);
    let owner = agent_user().map(|(uid, _)| uid);
    config::write(&places, &settings.stores, &settings.issuer, &value, owner)?;
    Ok(())
}

fn csi_program(machine: &Machine, settings: &NodeSettings) -> Program {
    let (uid, gid) = agent_user().unwrap_or_else(|| {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    });
    let path = |name| machine.path(name).display().to_string();
    let program = Program::new("sotto-csi", machine.path("bin/sotto-csi")).arguments([
        format!("--endpoint=unix://{}", path("csi.sock")),
        format!("--registration-dir={}", path("kubelet/plugins_registry")),
        format!("--driver-name={}", settings.driver.name),
        format!("--node-name={}", settings.name),
        format!("--kubelet-dir={}", path("kubelet")),
        format!("--run-dir={}", path("run")),
        format!("--agent-uid={uid}"),
        format!("--agent-gid={gid}"),
        format!("--provider-dirs={}", path("providers")),
        format!("--log={}", settings.log),
        "--development".to_owned(),
    ]);
    let sidecar = settings.sidecar_driver.as_ref();
    let sidecar = sidecar.map(|driver| format!("--sidecar-driver-name={}", driver.name));
    let program = with_canary(program, settings);
    program.arguments(sidecar).arguments(settings.csi_arguments.iter().cloned())
}

fn agent_program(machine: &Machine, settings: &NodeSettings, admin: String) -> Program {
    let config = machine.path("etc/config.yaml");
    let program = Program::new("sotto-node", machine.path("bin/sotto-node"));
    let program = program.user(agent_user()).arguments([
        format!("--config={}", config.display()),
        format!("--node-name={}", settings.name),
        format!("--log={}", settings.log),
        format!("--admin={admin}"),
        "--development".to_owned(),
    ]);
    with_canary(program, settings).arguments(settings.agent_arguments.iter().cloned())
}

fn with_canary(mut program: Program, settings: &NodeSettings) -> Program {
    let canary =
        settings.canary.iter().map(|canary| ("SOTTO_DEV_CANARY".to_owned(), canary.clone()));
    program.environment.extend(canary);
    program
}
