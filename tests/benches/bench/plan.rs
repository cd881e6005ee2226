//! How much is measured: everything, or what fits into five minutes.

use std::time::Duration;

/// Numbers of samples and lengths of windows.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) is_quick: bool,
    /// Only these groups; all if it is empty.
    pub(crate) groups: Vec<String>,
    /// Rounds of reading, each side once a round.
    pub(crate) rounds: usize,
    /// Operations of a round.
    pub(crate) operations: usize,
    /// Pairs of a publish and the floor's.
    pub(crate) publishes: usize,
    /// Rotations a side.
    pub(crate) rotations: usize,
    /// How long CPU time is counted for one sample with all volumes; for rotations, for all samples.
    pub(crate) window: Duration,
    /// Windows at rest with all volumes.
    pub(crate) windows_at_rest: usize,
    /// Workers killed.
    pub(crate) kills: usize,
    /// Starts of a peer.
    pub(crate) starts: usize,
}

impl Plan {
    /// From the command line: `--quick`, `--row=<group>`; what cargo adds is passed over.
    pub(crate) fn of(arguments: impl Iterator<Item = String>) -> Self {
        let mut plan = Self::whole();
        let mut groups = Vec::new();
        for argument in arguments {
            if argument == "--quick" {
                plan = Self::quick();
            }
            groups.extend(argument.strip_prefix("--row=").map(str::to_owned));
        }
        Self { groups, ..plan }
    }

    fn whole() -> Self {
        Self {
            is_quick: false,
            groups: Vec::new(),
            rounds: 31,
            operations: 4_000,
            publishes: 200,
            rotations: 20,
            window: Duration::from_secs(16),
            windows_at_rest: 4,
            kills: 20,
            starts: 10,
        }
    }

    fn quick() -> Self {
        Self {
            is_quick: true,
            rounds: 15,
            operations: 2_000,
            publishes: 120,
            window: Duration::from_secs(8),
            windows_at_rest: 3,
            kills: 8,
            starts: 7,
            ..Self::whole()
        }
    }

    /// The rows without goals are measured when they are asked for.
    pub(crate) fn has(&self, group: &str) -> bool {
        let is_wanted = self.groups.is_empty() && group != crate::rows::scaling::GROUP;
        is_wanted || self.groups.iter().any(|it| it == group)
    }
}
