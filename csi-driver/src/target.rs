//! Target paths: parsed once, opened only beneath the kubelet directory.
//!
//! Invariant: a [`TargetPath`] has exactly the shape that kubelet gives an inline volume, so no other place
//! of the node can be named by a request; and every open here refuses symbolic links on the way, so that
//! none planted by whoever may write in a pod's directory leads elsewhere.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use sotto_core::identity::PodUid;

/// The directory that the driver makes; kubelet makes its parent.
const MOUNT: &str = "mount";
/// Rights of that directory; the mount covers it.
const MOUNT_MODE: Mode = Mode::from_raw_mode(0o750);
/// Longest name of a volume: that of a file.
const MAX_VOLUME_NAME: usize = 255;
/// openat2 says EAGAIN when a rename raced with it.
const RACE_RETRIES: usize = 8;

/// A path that isn't a target of an inline volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not beneath the kubelet directory.
    #[error(
        "the target path is not beneath the kubelet directory {0}: start the driver with \
         --kubelet-dir"
    )]
    Outside(PathBuf),
    /// Another shape.
    #[error(
        "the target path is not <kubelet directory>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount"
    )]
    Shape,
}

/// The kubelet directory, kept open.
#[derive(Debug)]
pub struct KubeletDir {
    given: PathBuf,
    canonical: PathBuf,
    directory: OwnedFd,
}

/// `pods/<uid>/volumes/kubernetes.io~csi/<name>/mount`, beneath the kubelet directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetPath {
    pod_uid: PodUid,
    volume: String,
}

impl TargetPath {
    /// Parses the path relative to the kubelet directory.
    ///
    /// # Errors
    /// It has another shape.
    pub fn from_relative(path: &Path) -> Result<Self, TargetError> {
        let mut names = [""; 6];
        let mut components = path.components();
        for name in &mut names {
            *name = match components.next() {
                Some(Component::Normal(text)) => text.to_str().ok_or(TargetError::Shape)?,
                _ => return Err(TargetError::Shape),
            };
        }
        let ["pods", uid, "volumes", "kubernetes.io~csi", volume, MOUNT] = names else {
            return Err(TargetError::Shape);
        };
        if components.next().is_some() || !is_volume_name(volume) {
            return Err(TargetError::Shape);
        }
        let pod_uid = PodUid::parse(uid).map_err(|_| TargetError::Shape)?;
        Ok(Self { pod_uid, volume: volume.to_owned() })
    }

    /// Whose volume it is, as the path says.
    #[must_use]
    pub fn pod_uid(&self) -> &PodUid {
        &self.pod_uid
    }

    /// The path relative to the kubelet directory.
    #[must_use]
    pub fn relative(&self) -> PathBuf {
        self.parent().join(MOUNT)
    }

    fn parent(&self) -> PathBuf {
        let pod = Path::new("pods").join(self.pod_uid.as_str());
        pod.join("volumes/kubernetes.io~csi").join(&self.volume)
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.relative().display().fmt(f)
    }
}

fn is_volume_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    name.len() <= MAX_VOLUME_NAME && !name.starts_with('.') && name.bytes().all(allowed)
}

impl KubeletDir {
    /// Opens the kubelet directory.
    ///
    /// # Errors
    /// It doesn't exist or isn't a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let canonical = path.canonicalize()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, &canonical, flags, Mode::empty())?;
        Ok(Self { given: path.to_owned(), canonical, directory })
    }

    /// Parses a request's target path.
    ///
    /// # Errors
    /// It lies elsewhere or has another shape.
    pub fn target(&self, path: &str) -> Result<TargetPath, TargetError> {
        let path = Path::new(path);
        let relative = path
            .strip_prefix(&self.given)
            .or_else(|_| path.strip_prefix(&self.canonical))
            .map_err(|_| TargetError::Outside(self.given.clone()))?;
        TargetPath::from_relative(relative)
    }

    /// The directory with no link in its path, as mountinfo shows it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.canonical
    }

    /// Where mountinfo shows a mount on the target.
    #[must_use]
    pub fn mount_point(&self, target: &TargetPath) -> PathBuf {
        self.canonical.join(target.relative())
    }

    /// Opens the target's parent, which kubelet made. Never touches the target.
    ///
    /// # Errors
    /// It doesn't exist, or a symbolic link is on the way (ELOOP).
    pub fn open_parent(&self, target: &TargetPath) -> io::Result<Parent> {
        Ok(Parent(beneath(&self.directory, &target.parent(), ResolveFlags::empty())?))
    }

    /// Opens the root of the mount on the target, without asking its server anything.
    ///
    /// # Errors
    /// As [`Self::open_parent`].
    pub fn open_mounted(&self, target: &TargetPath) -> io::Result<OwnedFd> {
        Ok(beneath(&self.directory, &target.relative(), ResolveFlags::empty())?)
    }
}

/// The directory in which a target lies, open.
#[derive(Debug)]
pub struct Parent(OwnedFd);

impl Parent {
    /// Makes the target directory, or takes the one that is there, and opens it.
    ///
    /// # Errors
    /// Something else has its name, or it is a mount point (EXDEV).
    pub fn make_target(&self) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.0, MOUNT, MOUNT_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(beneath(&self.0, Path::new(MOUNT), ResolveFlags::NO_XDEV)?)
    }

    /// Whether something is mounted on the target; nothing is where no target is. Asks no mounted file system anything:
    /// the kernel answers from what it has. `None` where the kernel doesn't tell (Linux before 5.8).
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_mounted(&self) -> io::Result<Option<bool>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        match rustix::fs::statx(&self.0, MOUNT, flags, StatxFlags::empty()) {
            Ok(found) => {
                let tells = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
                Ok(tells.then(|| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
            }
            Err(Errno::NOENT) => Ok(Some(false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the target directory, empty and not mounted upon; done already is done.
    ///
    /// # Errors
    /// It isn't empty, is a mount point, or isn't a directory: it stays.
    pub fn remove_target(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, MOUNT, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory and the target's name in it.
    #[must_use]
    pub fn target(&self) -> (&OwnedFd, &'static str) {
        (&self.0, MOUNT)
    }
}

fn beneath(directory: impl AsFd, path: &Path, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(&directory, path, flags, Mode::empty(), resolve);
    let mut opened = open();
    for _ in 0..RACE_RETRIES {
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
        opened = open();
    }
    opened
}

/// Whether an error means that the parent is gone, and the target with it.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests;
