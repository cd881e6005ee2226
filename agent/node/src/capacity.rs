//! How many volumes this process has room for: the administrator's number, or less where the machine has less.
//!
//! Invariant: what is short is said at the start, with what to raise, and again in the refusal of the volume that
//! doesn't fit any more; no volume is taken that would run out of files or threads half-way.

use std::fmt;

use rustix::process::{Resource, getrlimit};
use sotto_volume::volumes::VolumeLimit;

/// Descriptors that are not volumes': sockets, connections to stores, the runtime's.
const RESERVED_FILES: u64 = 256;
/// A volume's in the supervisor, which has more than the worker: its connection, and what it left.
const FILES_OF_A_VOLUME: u64 = 2;
/// Threads that are not volumes': the runtime's, those for what blocks, the supervisor.
const RESERVED_THREADS: u64 = 64;
/// Locked memory of a small volume while it turns: two generations of one page.
const LOCKED_BYTES_OF_A_VOLUME: u64 = 2 * 4096;
/// What the administrator raises where `limits.volumes` is what is reached.
const BY_CONFIGURATION: &str = "raise limits.volumes";

/// What the process may have; `None` is without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Open files (RLIMIT_NOFILE).
    pub files: Option<u64>,
    /// Threads: the lower of RLIMIT_NPROC and the cgroup's pids.max.
    pub threads: Option<u64>,
    /// Bytes of locked memory (RLIMIT_MEMLOCK).
    pub locked_bytes: Option<u64>,
}

/// Something that is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage(String);

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Room {
    /// As it is now, after the soft limits were raised.
    #[must_use]
    pub fn here() -> Self {
        let limit = |resource| getrlimit(resource).current;
        let threads = [limit(Resource::Nproc), cgroup_threads()].into_iter().flatten().min();
        Self { files: limit(Resource::Nofile), threads, locked_bytes: limit(Resource::Memlock) }
    }

    /// How many of the `wanted` volumes there is room for, and what is short for all of them.
    #[must_use]
    pub fn for_volumes(self, wanted: usize) -> (VolumeLimit, Vec<Shortage>) {
        let mut limit = VolumeLimit { count: wanted, remedy: BY_CONFIGURATION };
        let mut shortages = Vec::new();
        let volumes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let by_files =
            self.files.map(|it| volumes(it.saturating_sub(RESERVED_FILES) / FILES_OF_A_VOLUME));
        let by_threads = self.threads.map(|it| volumes(it.saturating_sub(RESERVED_THREADS)));
        for (room, remedy, what) in [
            (by_files, "raise the limit of open files (RLIMIT_NOFILE) of sotto-node", "open files"),
            (by_threads, "raise the pod's pids limit (kubelet's podPidsLimit)", "threads"),
        ] {
            let Some(room) = room.filter(|room| *room < wanted) else { continue };
            shortages.push(Shortage(format!(
                "there are {what} for {room} volumes of the {wanted} in limits.volumes: {remedy}"
            )));
            if room < limit.count {
                limit = VolumeLimit { count: room, remedy };
            }
        }
        let by_locked = self.locked_bytes.map(|it| volumes(it / LOCKED_BYTES_OF_A_VOLUME));
        if let Some(room) = by_locked.filter(|room| *room < limit.count) {
            shortages.push(Shortage(format!(
                "there is locked memory for about {room} small volumes of {}: the values of others may be \
                 swapped out; raise RLIMIT_MEMLOCK of sotto-node, or turn swap off",
                limit.count
            )));
        }
        (limit, shortages)
    }
}

/// `pids.max` of this process's cgroup, in version 2 and in version 1; `None` where there is none.
fn cgroup_threads() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    pids_files(&own).find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// Where the limit may stand, for the lines of /proc/self/cgroup. In a container the cgroup is its own root.
fn pids_files(own: &str) -> impl Iterator<Item = String> + '_ {
    own.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            "pids" => "/sys/fs/cgroup/pids",
            _ => return Vec::new(),
        };
        let path = path.trim_end_matches('/');
        vec![format!("{root}{path}/pids.max"), format!("{root}/pids.max")]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Room =
        Room { files: Some(1 << 20), threads: Some(1 << 15), locked_bytes: Some(1 << 30) };

    fn texts(room: Room) -> (VolumeLimit, Vec<String>) {
        let (limit, shortages) = room.for_volumes(1000);
        (limit, shortages.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn with_enough_of_all_the_administrators_number_counts() {
        for room in [ENOUGH, Room { files: None, threads: None, locked_bytes: None }] {
            let (limit, shortages) = texts(room);
            assert_eq!((limit.count, limit.remedy), (1000, "raise limits.volumes"));
            assert!(shortages.is_empty(), "{shortages:?}");
        }
    }

    #[test]
    fn each_shortage_is_named_with_its_remedy_and_the_worst_one_counts() {
        let (limit, shortages) = texts(Room { files: Some(1256), ..ENOUGH });
        assert_eq!(limit.count, 500);
        assert!(shortages[0].contains("open files for 500 volumes"), "{shortages:?}");
        let (limit, shortages) = texts(Room { files: Some(1256), threads: Some(100), ..ENOUGH });
        assert_eq!(limit.count, 36);
        assert!(limit.remedy.contains("podPidsLimit"));
        assert_eq!(shortages.len(), 2, "{shortages:?}");
        let (limit, shortages) = texts(Room { locked_bytes: Some(64 << 10), ..ENOUGH });
        assert_eq!(limit.count, 1000, "degraded, and said");
        assert!(shortages[0].contains("swapped out; raise RLIMIT_MEMLOCK"), "{shortages:?}");
        let none = texts(Room { files: Some(10), ..ENOUGH }).0;
        assert_eq!(none.count, 0);
    }

    #[test]
    fn the_cgroups_limit_is_looked_for_in_both_versions() {
        let files: Vec<_> = pids_files("8:pids:/pod\n1:cpu:/\n0::/kubepods/x\n").collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/pids/pod/pids.max",
                "/sys/fs/cgroup/pids/pids.max",
                "/sys/fs/cgroup/kubepods/x/pids.max",
                "/sys/fs/cgroup/pids.max",
            ]
        );
    }
}
