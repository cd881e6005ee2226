//! The sidecar's container: the executable of its image with its arguments, user and cgroup.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{HANDOFF, Injected};
use crate::node::{AGENT_ID, Node, NodeError, may_become, records, with_canary};
use crate::process::{Program, Running, Stream};

/// Between two looks at what nobody announces.
const POLL: Duration = Duration::from_millis(10);

impl Injected {
    /// Starts the sidecar's container; both volumes must have been published.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_sidecar(&mut self, node: &Node) -> Result<(), NodeError> {
        self.show_handoff(node)?;
        self.bury();
        self.running = Some(self.another_sidecar(node).await?);
        Ok(())
    }

    /// A second container of the same sidecar beside the present one, as a kubelet never starts it.
    ///
    /// # Errors
    /// It does not start.
    pub async fn another_sidecar(&self, node: &Node) -> Result<Running, NodeError> {
        Ok(Running::start(self.program(node, &self.spec.arguments)).await?)
    }

    /// What the sidecar's executable runs as: in its cgroup, by its user, with paths of this machine.
    #[must_use]
    pub fn program(&self, node: &Node, arguments: &[String]) -> Program {
        let executable = node.path(&format!("bin{}", self.spec.command));
        let arguments: Vec<String> = arguments.iter().map(|it| self.translated(it)).collect();
        let user = may_become(AGENT_ID).then_some(self.spec.user);
        let mut program = Program::new(&self.spec.name, executable).arguments(arguments);
        program = with_canary(program, &node.settings);
        // As uid 0, in a user namespace that has no other: the driver's uid is this one too.
        program = program.arguments(user.is_none().then_some("--development"));
        program = program.arguments(node.settings.sidecar_arguments.iter().cloned());
        program.user(user).cgroup(self.cgroup.clone())
    }

    /// The startupProbe, once: nothing if it succeeds, else what it said.
    ///
    /// # Errors
    /// It does not start.
    pub async fn probe(&self, node: &Node) -> Result<Option<String>, NodeError> {
        let program = self.probe_program(node);
        let probe = Running::start(program).await?;
        let Ok(status) = probe.wait(self.spec.probe_timeout).await else {
            return Ok(Some(format!("no answer within {:?}", self.spec.probe_timeout)));
        };
        let said = probe.log().text();
        Ok((!status.success()).then_some(said))
    }

    /// The startupProbe's command.
    #[must_use]
    pub fn probe_program(&self, node: &Node) -> Program {
        let mut arguments = self.spec.probe.clone();
        // The default in the container.
        arguments.push(format!("--handoff={}", self.handoff_path().display()));
        let mut program = self.program(node, &[]);
        program.arguments = arguments;
        let development = program.user.is_none().then(|| "--development".to_owned());
        program.arguments.extend(development);
        program
    }

    /// Waits until the startupProbe has succeeded: at once and then every period. Returns how often it was tried.
    ///
    /// # Errors
    /// It has failed for as long as kubelet waits, or for `patience`.
    pub async fn ready(&self, node: &Node, patience: Duration) -> Result<u32, NodeError> {
        let begun = std::time::Instant::now();
        let mut said = String::new();
        for number in 1..=self.spec.probe_failures {
            match self.probe(node).await? {
                None => return Ok(number),
                Some(reason) => said = reason,
            }
            if begun.elapsed() > patience {
                break;
            }
            tokio::time::sleep(self.spec.probe_period.min(node.settings.probe_period)).await;
        }
        let lines = self.running.as_ref().map(|it| it.log().tail()).unwrap_or_default();
        Err(NodeError::NeverReady { said, lines, csi: node.csi.log().tail() })
    }

    /// Shows the sidecar its handoff volume.
    ///
    /// # Errors
    /// The mount was refused.
    pub fn show_handoff(&mut self, node: &Node) -> Result<(), NodeError> {
        let at = self.handoff_path();
        if !self.shown.contains(&at) {
            let target = node.kubelet.target(&self.pod, self.handoff()?);
            self.show(node, &target, at)?;
        }
        Ok(())
    }

    /// Shows the application's container its secrets: what CreateContainer does. Returns the path.
    ///
    /// # Errors
    /// The mount was refused.
    pub fn show_secrets(&mut self, node: &Node) -> Result<PathBuf, NodeError> {
        let at = self.folder.join("secrets");
        if !self.shown.contains(&at) {
            let target = node.kubelet.target(&self.pod, self.secrets()?);
            self.show(node, &target, at.clone())?;
        }
        Ok(at)
    }

    fn show(
        &mut self,
        node: &Node,
        target: &std::path::Path,
        at: PathBuf,
    ) -> Result<(), NodeError> {
        node.machine.bind_at(target, &at)?;
        self.shown.push(at);
        Ok(())
    }

    /// The path of an argument such as `--token=/path`, which names one in the container, on this machine.
    fn translated(&self, argument: &str) -> String {
        let Some((name, path)) = argument.split_once("=/") else { return argument.to_owned() };
        let path = format!("/{path}");
        let below = |mount: &&crate::kubelet::Mount| path.starts_with(&mount.mount_path);
        let Some(mount) = self.spec.mounts.iter().find(below) else { return argument.to_owned() };
        let directory = match mount.name.as_str() {
            HANDOFF => self.handoff_path(),
            name if name == self.spec.token.volume => self.token.directory().to_owned(),
            _certificate => self.certificate.clone(),
        };
        format!("{name}={}{}", directory.display(), &path[mount.mount_path.len()..])
    }

    /// The audit records of all containers of the sidecar.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let present = self.running.as_ref().map(|it| it.log());
        self.logs.iter().chain(present).flat_map(|log| log.read(records)).collect()
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
        let wait = async {
            loop {
                let records = self.audit();
                if condition(&records) {
                    return records;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(deadline, wait).await.map_err(|_| {
            let lines = self.running.as_ref().map(|it| it.log().lines(Stream::Output).join("\n"));
            NodeError::NoRecord(what.to_owned(), deadline, lines.unwrap_or_default())
        })
    }
}
