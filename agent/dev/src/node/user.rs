//! Which users this process may give to its children.

/// The agents' user and group in a cluster.
pub const AGENT_ID: u32 = 65532;

/// Whether a user id exists in this user namespace, as a uid and as a gid.
#[must_use]
pub fn is_mapped(id: u32) -> bool {
    ["uid_map", "gid_map"].iter().all(|map| {
        let text = std::fs::read_to_string(format!("/proc/self/{map}")).unwrap_or_default();
        text.lines().any(|line| covers(line, id))
    })
}

/// Whether children may become the agents' user: root, where that user exists.
#[must_use]
pub fn may_become(id: u32) -> bool {
    rustix::process::geteuid().is_root() && is_mapped(id)
}

/// `<first inside> <first outside> <count>`.
fn covers(line: &str, id: u32) -> bool {
    let mut fields = line.split_whitespace().map(str::parse::<u64>);
    match (fields.next(), fields.nth(1)) {
        (Some(Ok(first)), Some(Ok(count))) => {
            (first..first.saturating_add(count)).contains(&u64::from(id))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_mapped_uid_is_told_from_a_whole_range() {
        assert!(covers("         0          0 4294967295", 65532));
        assert!(covers("0 1000 1", 0));
        assert!(!covers("0 1000 1", 65532));
        assert!(!covers("", 0));
    }
}
