//! What a test looks at in a volume, off the async threads: a read of a mount may block.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for a file-system operation: one that hangs fails its test instead of the whole run.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs blocking file-system work with a deadline.
///
/// # Errors
/// The work's own, or the deadline.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await???)
}

/// A file's content as text.
///
/// # Errors
/// The file can't be read.
pub async fn read(path: PathBuf) -> anyhow::Result<String> {
    blocking(move || std::fs::read_to_string(path)).await
}

/// Every file beneath the volume's root as an application sees it: path to content. The volume's own
/// names (`..`) are left out.
///
/// # Errors
/// Something can't be read.
pub async fn tree(root: PathBuf) -> anyhow::Result<BTreeMap<String, String>> {
    blocking(move || {
        let mut files = BTreeMap::new();
        walk(&root, &root, &mut files)?;
        Ok(files)
    })
    .await
}

fn walk(root: &Path, at: &Path, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in std::fs::read_dir(at)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("..") {
            continue;
        }
        if std::fs::metadata(&path)?.is_dir() {
            walk(root, &path, files)?;
        } else {
            let relative = path.strip_prefix(root).map_err(io::Error::other)?;
            files.insert(relative.display().to_string(), std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Permission bits, owner and group of a file.
///
/// # Errors
/// The file can't be looked at.
pub async fn mode_and_owner(path: PathBuf) -> anyhow::Result<(u32, u32, u32)> {
    blocking(move || {
        let metadata = std::fs::metadata(path)?;
        Ok((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()))
    })
    .await
}

/// Runs `cat` as another user, who must exist in this user namespace.
///
/// # Errors
/// It can't be started, or hangs.
pub async fn cat_as(path: &Path, uid: u32, gid: u32) -> anyhow::Result<std::process::Output> {
    use std::os::unix::process::CommandExt;
    let path = path.to_owned();
    blocking(move || std::process::Command::new("cat").arg(path).uid(uid).gid(gid).output()).await
}

/// How many mounts this mount namespace has at `path`.
///
/// # Errors
/// mountinfo can't be read.
pub fn mounts_at(path: &Path) -> io::Result<usize> {
    let wanted = path.to_string_lossy().into_owned();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some(wanted.as_str())).count())
}

/// The line of mountinfo for the topmost mount at `path`: its id, parent, device, root and options.
///
/// # Errors
/// mountinfo can't be read, or nothing is mounted there.
pub fn mount_line(path: &Path) -> anyhow::Result<String> {
    let wanted = path.to_string_lossy().into_owned();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let found = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(wanted.as_str()));
    found.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("nothing is mounted at {wanted}"))
}
