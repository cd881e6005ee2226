//! Paths inside a container: which one may be chosen, and which ones meet.

/// Longest path, in bytes.
const MAX_BYTES: usize = 512;
/// The kernel's own file systems; a mount there breaks the container or its isolation.
const KERNELS: &[&str] = &["/proc", "/sys", "/dev"];

/// Checks a path that a pod's author chose.
pub(super) fn parse(text: &str) -> Result<&str, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b':' && byte != b'\\';
    let complaint = if !text.starts_with('/') || text.len() > MAX_BYTES {
        "write an absolute path of at most 512 bytes"
    } else if !text.bytes().all(plain) {
        "write printable ASCII without colons, backslashes and blanks"
    } else if text[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        "write it without empty parts, . and .., and not /"
    } else if KERNELS.iter().any(|kernels| is_beneath(text, kernels)) {
        "not in /proc, /sys or /dev"
    } else {
        return Ok(text);
    };
    Err(complaint.to_owned())
}

/// Whether a mount at `other`, as its author wrote it, is at `path` or beneath it. A read-only file system
/// can't be mounted on.
pub(super) fn hides(path: &str, other: &str) -> bool {
    is_beneath(&normal(other), path)
}

fn is_beneath(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_plain_path_may_be_chosen() {
        for path in ["/mnt/secrets", "/s", "/etc/app/secrets.d", "/devices", "/process/x"] {
            assert_eq!(parse(path), Ok(path));
        }
    }

    #[test]
    fn every_other_path_is_refused() {
        let long = format!("/{}", "x".repeat(MAX_BYTES));
        for path in [
            "",
            "mnt",
            "/",
            "//",
            "/mnt/",
            "/mnt//x",
            "/mnt/../etc",
            "/./x",
            "/a:b",
            "/a b",
            "/a\nb",
            "/ä",
            "/proc",
            "/proc/self",
            "/sys/fs",
            "/dev/shm",
            "/a\\b",
            &long,
        ] {
            assert!(parse(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_mount_at_or_beneath_the_path_is_found_however_it_is_written() {
        for other in ["/mnt/secrets", "/mnt/secrets/", "//mnt/./secrets/x", "/mnt/x/../secrets"] {
            assert!(hides("/mnt/secrets", other), "{other}");
        }
        for other in ["/mnt", "/mnt/secrets2", "/", "/mnt/secrets/.."] {
            assert!(!hides("/mnt/secrets", other), "{other}");
        }
    }
}
