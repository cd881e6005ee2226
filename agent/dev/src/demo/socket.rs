//! The pod's socket, tried by somebody else: what the driver makes of it.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::stage::Stage;
use crate::node::{Injected, may_become};
use crate::process::Running;

const DEADLINE: Duration = Duration::from_secs(10);
/// A user that is nobody's sidecar.
const STRANGER: (u32, u32) = (1000, 1000);

/// An attempt.
#[derive(Debug, Serialize)]
pub(super) struct Attempt {
    /// Who tried, in words.
    pub(super) who: String,
    /// sotto-node's audit record of it.
    pub(super) reason: String,
}

/// Has whoever can be played on this machine try the socket of the demo's pod.
pub(super) async fn try_by(stage: &Stage, other: &Injected) -> anyhow::Result<Vec<Attempt>> {
    let Some(victim) = &stage.injected else { return Ok(Vec::new()) };
    let mut attempts = Vec::new();
    let mut program = victim.probe_program(&stage.node);
    // The role of a sidecar, not of its probe.
    program.arguments.retain(|argument| argument != "probe");
    program.arguments.push(format!("--token={}/token", other.token_directory().display()));
    if let Some(cgroup) = other.cgroup() {
        let program = program.clone().cgroup(Some(cgroup.to_owned()));
        let who = format!("a process of {}", other.pod.name);
        attempts.push(Attempt { who, reason: refused(stage, program).await? });
    }
    if may_become(STRANGER.0) {
        let program = program.clone().user(Some(STRANGER));
        let who = format!("a process of uid {}", STRANGER.0);
        attempts.push(Attempt { who, reason: refused(stage, program).await? });
    }
    let who = "a second sidecar of the pod itself".to_owned();
    attempts.push(Attempt { who, reason: refused(stage, program).await? });
    Ok(attempts)
}

/// Runs it until sotto-node has one refusal more on record; returns the reason.
async fn refused(stage: &Stage, program: crate::process::Program) -> anyhow::Result<String> {
    let before = count(&stage.node.audit());
    let intruder = Running::start(program).await?;
    let more = |records: &[Value]| count(records) > before;
    let records = stage.node.audited("the refusal at the socket", DEADLINE, more).await?;
    intruder.kill().await?;
    let last = records.iter().rfind(|record| is_refusal(record));
    Ok(last.and_then(|it| it["reason"].as_str()).unwrap_or_default().to_owned())
}

fn count(records: &[Value]) -> usize {
    records.iter().filter(|record| is_refusal(record)).count()
}

fn is_refusal(record: &Value) -> bool {
    record["action"] == "handoff" && record["decision"] == "denied"
}
