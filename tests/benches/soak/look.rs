//! What there is: each process's fds, threads and memory, the mounts, the journal, and at the store and its database
//! what pods left behind.
//!
//! Invariant: everything is looked at from outside: `/proc`, the mount table, the store's own lists, the database's
//! own roles.

use std::fmt;

use anyhow::{Context, ensure};
use http::Method;
use sotto_dev::bao::Bao;
use sotto_dev::postgres::Postgres;
use sotto_tests::procfs;
use sotto_tests::scene::Scene;

/// What a process may grow by between two looks: pools of threads and connections, an allocator's.
const FDS: usize = 8;
const THREADS: usize = 8;
const MEMORY_KIB: u64 = 16 << 10;
/// The store answers a list of nothing so.
const NOTHING_LISTED: u16 = 404;

/// One process of ours.
struct Process {
    name: &'static str,
    pid: u32,
    fds: usize,
    threads: usize,
    memory_kib: u64,
}

/// What there is.
pub(crate) struct Look {
    processes: [Process; 3],
    mounts: usize,
    journal: usize,
    pub(crate) left: Left,
}

/// What pods have at the store and in its database.
#[derive(PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) logins: usize,
    pub(crate) leases: usize,
    pub(crate) roles: usize,
}

impl Left {
    pub(crate) const NOTHING: Self = Self { logins: 0, leases: 0, roles: 0 };

    /// `own` logins are not of pods.
    pub(crate) async fn at(store: &Bao, postgres: &Postgres, own: usize) -> anyhow::Result<Self> {
        let leases = listed(store, "sys/leases/lookup/database/creds/payments").await?;
        let logins = logins(store).await?.checked_sub(own).context("the soak's own login ended")?;
        Ok(Self { logins, leases, roles: postgres.roles().await?.len() })
    }
}

/// All logins, the administrator's too.
pub(crate) async fn logins(store: &Bao) -> anyhow::Result<usize> {
    listed(store, "auth/token/accessors").await
}

async fn listed(store: &Bao, path: &str) -> anyhow::Result<usize> {
    let list = Method::from_bytes(b"LIST")?;
    let token = Some(store.admin_token());
    let reply = store.client().send(list, &format!("/v1/{path}"), token, None).await?;
    if reply.status == NOTHING_LISTED {
        return Ok(0);
    }
    ensure!(reply.status < 400, "{path}: status {}", reply.status);
    Ok(reply.body["data"]["keys"].as_array().context("a list has keys")?.len())
}

impl Look {
    pub(crate) fn at(scene: &Scene<Bao>, left: Left) -> anyhow::Result<Self> {
        let node = scene.node();
        let worker = node.worker().context("no worker")?;
        let machine = node.path("").display().to_string();
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let pids =
            [("driver", node.csi().pid()), ("supervisor", node.agent().pid()), ("worker", worker)];
        Ok(Self {
            processes: pids.map(|(name, pid)| Process {
                name,
                pid,
                fds: procfs::fds(pid),
                threads: procfs::threads(pid),
                memory_kib: procfs::resident_kib(pid),
            }),
            mounts: table.lines().filter(|line| line.contains(&machine)).count(),
            journal: std::fs::read_dir(node.path("run/volumes"))?.count(),
            left,
        })
    }

    pub(crate) fn are_the_processes_of(&self, before: &Self) -> anyhow::Result<()> {
        let pids = |look: &Self| [0, 1, 2].map(|at| look.processes[at].pid);
        ensure!(pids(self) == pids(before), "a process is another one, and none was killed");
        Ok(())
    }

    pub(crate) fn compared_with(&self, before: &Self) -> anyhow::Result<()> {
        for (now, then) in self.processes.iter().zip(&before.processes) {
            let name = now.name;
            ensure!(now.fds <= then.fds + FDS, "the {name}'s fds grew");
            ensure!(now.threads <= then.threads + THREADS, "the {name}'s threads grew");
            let most = then.memory_kib + then.memory_kib / 4 + MEMORY_KIB;
            ensure!(now.memory_kib <= most, "the {name}'s memory grew");
        }
        ensure!(self.mounts == before.mounts, "mounts are left");
        ensure!(self.journal == 0, "journal entries are left");
        ensure!(self.left == Left::NOTHING, "{} are left", self.left);
        Ok(())
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logins, leases, roles } = self;
        write!(f, "{logins} logins, {leases} leases, {roles} roles of the database")
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Process { name, fds, threads, memory_kib, .. } in &self.processes {
            let memory = *memory_kib as f64 / 1024.0;
            write!(f, "{name}: {fds} fds, {threads} threads, {memory:.1} MiB; ")?;
        }
        let Self { mounts, journal, left, .. } = self;
        write!(f, "{mounts} mounts, {journal} in the journal, {left}")
    }
}
