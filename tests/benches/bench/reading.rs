//! What an application does with a file, timed: microseconds an operation, over many of them.
//!
//! Invariant: each operation is checked once before it is timed; what reads nothing can't be fast.
#![expect(unsafe_code, reason = "mmap: its pages are read")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const PAGE: usize = 4096;
/// Of a read: more than any file that is read so.
const BUFFER: usize = 16 << 10;

/// An operation on a path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    /// open, one read, close.
    Read,
    /// open, read to the end, close, as `std::fs::read` does it.
    Whole,
    /// stat, links followed.
    Stat,
    /// opendir, all entries, closedir.
    List,
    /// open, mmap of a page, each of its cache lines read, munmap, close.
    Map,
}

impl Operation {
    /// Runs it once; returns how many bytes or entries there were.
    fn run(self, path: &Path, buffer: &mut [u8]) -> anyhow::Result<usize> {
        Ok(match self {
            Self::Read => {
                let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                rustix::io::read(&file, buffer)?
            }
            Self::Whole => std::fs::read(path)?.len(),
            Self::Stat => rustix::fs::stat(path)?.st_size as usize,
            Self::List => {
                let mut entries = 0;
                for entry in std::fs::read_dir(path)? {
                    black_box(entry?.file_name());
                    entries += 1;
                }
                entries
            }
            Self::Map => mapped(path)?,
        })
    }

    /// Microseconds an operation, in the mean of so many on these paths in turn.
    pub(crate) fn timed(self, paths: &[PathBuf], operations: usize) -> anyhow::Result<f64> {
        let mut buffer = vec![0; BUFFER];
        let mut sum = 0;
        let began = Instant::now();
        for path in paths.iter().cycle().take(operations) {
            sum += self.run(path, &mut buffer)?;
        }
        let took = began.elapsed();
        ensure!(black_box(sum) >= operations, "{self:?} finds nothing in {paths:?}");
        Ok(took.as_secs_f64() * 1e6 / operations as f64)
    }
}

fn mapped(path: &Path) -> anyhow::Result<usize> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: a new mapping at an address of the kernel's choice; unmapped below, and nothing refers to it then.
    let pages = unsafe {
        mmap(std::ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::PRIVATE, &file, 0)
            .with_context(|| format!("{} can't be mapped", path.display()))?
    };
    let mut sum = 0_usize;
    for at in (0..PAGE).step_by(64) {
        // SAFETY: within the page, which is readable: the file is at least a byte long, and who serves it stays.
        sum += usize::from(unsafe { pages.cast::<u8>().add(at).read_volatile() });
    }
    // SAFETY: the mapping that was made above.
    unsafe { munmap(pages, PAGE)? };
    Ok(sum)
}
