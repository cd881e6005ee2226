//! What the node never has in sidecar mode: the memory of the driver and of the node agent, searched while the pod
//! lives, for its token and for every value of its secrets. A canary in their environment shows that the search
//! sees what is there.

use serde::Serialize;

use super::stage::Stage;
use crate::memory::{search, secret_mappings};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Search {
    /// Each process that belongs to the node.
    pub(super) processes: Vec<Searched>,
    /// How many values were searched for.
    pub(super) values: usize,
    /// Bytes of the sidecar's memory that even root can't read; `None` where the kernel has no such memory.
    pub(super) hidden_in_the_sidecar: Option<u64>,
}

/// One process's memory.
#[derive(Debug, Serialize)]
pub(super) struct Searched {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    /// Hits of the pod's token.
    pub(super) token: usize,
    /// Hits of values of secrets.
    pub(super) secrets: usize,
    /// Hits of the canary.
    pub(super) canary: usize,
}

impl Search {
    /// Searches; an error where a process's canary isn't found, for then nothing was seen.
    pub(super) async fn of(stage: &Stage) -> anyhow::Result<Option<Self>> {
        let Some(injected) = &stage.injected else { return Ok(None) };
        let file = injected.token_directory().join("token");
        let token = std::fs::read_to_string(file)?;
        // The signature is what makes it a token; the rest is public.
        let token = token.rsplit('.').next().unwrap_or_default().trim().to_owned();
        let values = stage.values();
        let count = values.len();
        let mut processes = Vec::new();
        for (name, pid) in super::report::node_processes(stage) {
            let needles: Vec<_> =
                [token.clone(), stage.canary.clone()].into_iter().chain(values.clone()).collect();
            processes.push(tokio::task::spawn_blocking(move || one(name, pid, &needles)).await??);
        }
        let hidden = injected.worker().map(secret_mappings).transpose()?.unwrap_or_default();
        Ok(Some(Self {
            processes,
            values: count,
            hidden_in_the_sidecar: (!hidden.is_empty()).then(|| hidden.iter().sum()),
        }))
    }

    /// Hits of what must not be there.
    pub(super) fn hits(&self) -> usize {
        self.processes.iter().map(|it| it.token + it.secrets).sum()
    }
}

fn one(name: &'static str, pid: u32, needles: &[String]) -> anyhow::Result<Searched> {
    let bytes: Vec<&[u8]> = needles.iter().map(String::as_bytes).collect();
    let found = search(pid, &bytes)?;
    let (token, canary, secrets) = (found[0], found[1], found[2..].iter().sum());
    anyhow::ensure!(canary > 0, "the planted canary was not found in {name}: nothing was seen");
    Ok(Searched { name, pid, token, secrets, canary })
}
