//! CPU time of processes with all that they start, counted in a cgroup of their own: children that have ended count
//! to the microsecond. Called by the benches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::procfs;
use crate::usage::Usage;

/// What counts the CPU time of some processes.
#[derive(Debug)]
pub struct CpuTime {
    roots: Vec<u32>,
    cgroup: Option<PathBuf>,
}

impl CpuTime {
    /// Moves these processes and all below them into an empty cgroup. Without one, what ended children used comes in
    /// hundredths of a second.
    ///
    /// # Errors
    /// One of `roots` has ended, or can't be moved.
    pub fn of(roots: &[u32], cgroup: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(cgroup) = &cgroup {
            roots.iter().flat_map(|root| procfs::tree(*root)).try_for_each(|pid| {
                let moved = std::fs::write(cgroup.join("cgroup.procs"), pid.to_string());
                // A child may end meanwhile.
                if procfs::state(pid).is_none() {
                    return Ok(());
                }
                moved.with_context(|| format!("process {pid} can't be moved to a cgroup"))
            })?;
        }
        let counted = Self { roots: roots.to_vec(), cgroup };
        counted.used()?;
        Ok(counted)
    }

    /// Whether ended children count to the microsecond.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.cgroup.is_some()
    }

    /// User and system time up to now; since when is the same for all calls.
    ///
    /// # Errors
    /// One of the processes has ended.
    pub fn used(&self) -> anyhow::Result<Duration> {
        for root in &self.roots {
            let state = procfs::state(*root);
            ensure!(!matches!(state, None | Some('Z' | 'X')), "process {root} has ended");
        }
        match &self.cgroup {
            Some(cgroup) => of_cgroup(cgroup),
            None => Ok(Usage::of(&self.roots)?.cpu),
        }
    }
}

fn of_cgroup(cgroup: &Path) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(cgroup.join("cpu.stat"))?;
    let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds = microseconds.context("no CPU time in cpu.stat")?.parse()?;
    Ok(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "usage_usec 1234567\nuser_usec 234567\nsystem_usec 1000000\n";

    #[test]
    fn a_cgroups_time_is_read_to_the_microsecond() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("cpu.stat"), STAT)?;
        assert_eq!(of_cgroup(directory.path())?, Duration::from_micros(1_234_567));
        std::fs::write(directory.path().join("cpu.stat"), "nr_periods 0\n")?;
        assert!(of_cgroup(directory.path()).is_err());
        Ok(())
    }

    #[tokio::test]
    async fn a_process_is_moved_and_once_it_has_ended_it_is_no_zero() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("cpu.stat"), STAT)?;
        let cgroup = || Some(directory.path().to_owned());
        let mut cat = std::process::Command::new("cat");
        let mut cat = cat.stdin(std::process::Stdio::piped()).spawn()?;
        let pid = cat.id();
        let counted = CpuTime::of(&[pid], cgroup())?;
        assert_eq!(counted.used()?, Duration::from_micros(1_234_567));
        let moved = std::fs::read_to_string(directory.path().join("cgroup.procs"))?;
        assert_eq!(moved, pid.to_string());
        assert!(CpuTime::of(&[pid], Some(directory.path().join("none"))).is_err());
        drop(cat.stdin.take());
        crate::wait::until("its end", || procfs::state(pid) == Some('Z')).await?;
        assert!(counted.used().is_err());
        cat.wait()?;
        assert!(counted.used().is_err());
        Ok(())
    }

    #[test]
    fn without_a_cgroup_it_is_what_the_processes_say() -> anyhow::Result<()> {
        let counted = CpuTime::of(&[std::process::id()], None)?;
        assert!(!counted.is_exact());
        assert!(counted.used()? > Duration::ZERO);
        assert!(CpuTime::of(&[u32::MAX], None).is_err());
        Ok(())
    }
}
