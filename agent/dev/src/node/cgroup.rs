//! Cgroups with the names that kubelet gives to those of pods, so that a process can be taken for a pod's: only as
//! a name, nothing is limited. Where this process may not make any, there are none.
//!
//! Invariant: each is below a directory with this process's number. What an earlier process left when it was
//! killed is removed by the next one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::random;

const PREFIX: &str = "sotto-dev-";

/// The cgroups of one machine; removed with it.
pub(super) struct Cgroups(PathBuf);

impl Cgroups {
    /// `None` where none can be made: no cgroup 2, not mounted writable, or not this user's.
    pub(super) fn new() -> Option<Self> {
        let own = own_directory()?;
        remove_what_was_left(&own);
        let name = format!("{PREFIX}{}-{}", std::process::id(), random::hex::<3>());
        let directory = own.join(name);
        fs::create_dir(&directory).ok()?;
        let cgroups = Self(directory);
        // Made, but not to be used: a process can't be moved into one whose parent isn't this user's.
        fs::OpenOptions::new().write(true).open(own.join("cgroup.procs")).ok()?;
        Some(cgroups)
    }

    /// The cgroup of a container of this pod, as kubelet names it with systemd's driver.
    pub(super) fn of_pod(&self, pod_uid: &str) -> io::Result<PathBuf> {
        let pod = format!("kubepods-besteffort-pod{}.slice", pod_uid.replace('-', "_"));
        let container = format!("cri-containerd-{}.scope", random::hex::<32>());
        let directory = self.0.join(pod).join(container);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Where this process is in the hierarchy of cgroup 2.
fn own_directory() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(path))
}

fn remove_what_was_left(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a cgroup and those below it; one with processes stays.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(directory) {
        tracing::debug!(path = %directory.display(), %error, "a cgroup is left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Program, Running};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_process_is_in_a_cgroup_with_its_pods_uid_and_both_go() {
        let Some(cgroups) = Cgroups::new() else {
            assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
            return;
        };
        let directory = cgroups.of_pod("a-b-c").unwrap();
        let program = Program::new("cat", "/bin/cat").arguments(["/proc/self/cgroup"]);
        let user = super::super::may_become(super::super::AGENT_ID).then_some((65532, 65532));
        let cat = Running::start(program.user(user).cgroup(Some(directory))).await.unwrap();
        let line = cat.line("its cgroup", PATIENCE, |it| it.starts_with("0::/")).await.unwrap();
        assert!(line.contains("/kubepods-besteffort-poda_b_c.slice/cri-containerd-"), "{line}");
        cat.wait(PATIENCE).await.unwrap();
        let base = cgroups.0.clone();
        drop(cgroups);
        assert!(!base.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let Some(own) = own_directory() else { return };
        // No process has this number.
        let left = own.join(format!("{PREFIX}{}-x/pod", u32::MAX));
        if fs::create_dir_all(&left).is_ok() {
            drop(Cgroups::new());
            assert!(!left.exists());
        }
    }
}
