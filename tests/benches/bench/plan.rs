//! How much is measured: everything, or what fits into five minutes.
//!
//! Most groups are measured in four short passes that are spread over the run, each with processes of its own: what differs
//! from start to start, and from one state of a shared machine to the next, is in the samples and so in their spread.

use std::time::Duration;

/// How often the groups are measured that are measured more than once.
pub(crate) const PASSES: usize = 4;

/// Numbers of samples and lengths of windows, in a pass.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) is_quick: bool,
    /// Only these groups; all if it is empty.
    pub(crate) groups: Vec<String>,
    /// Rounds of reading, each side once a round.
    pub(crate) rounds: usize,
    /// Operations of a round. The kit keeps 100,000 lines of an audit log: all rounds of a pass must fit.
    pub(crate) operations: usize,
    /// Pairs of a publish and the floor's.
    pub(crate) publishes: usize,
    /// Rotations a side.
    pub(crate) rotations: usize,
    /// How long CPU time is counted for one sample of the rotation's.
    pub(crate) part: Duration,
    /// Seconds of CPU time at rest with all volumes, a sample each.
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
            rounds: 8,
            operations: 3_000,
            publishes: 50,
            rotations: 10,
            part: Duration::from_secs(2),
            windows_at_rest: 48,
            kills: 5,
            starts: 4,
        }
    }

    fn quick() -> Self {
        Self {
            is_quick: true,
            rounds: 4,
            operations: 2_000,
            publishes: 30,
            rotations: 4,
            part: Duration::from_secs(1),
            windows_at_rest: 16,
            kills: 3,
            starts: 3,
            ..Self::whole()
        }
    }

    /// The rows without goals are measured when they are asked for.
    pub(crate) fn has(&self, group: &str) -> bool {
        let is_wanted = self.groups.is_empty() && group != crate::rows::scaling::GROUP;
        is_wanted || self.groups.iter().any(|it| it == group)
    }
}
