//! inotify events as comparable values.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What happened, and to which name in a watched directory.
pub type Event = (ReadFlags, String);

/// Watches one path.
pub struct Watch(OwnedFd);

impl Watch {
    /// Everything but opens, reads and closes.
    ///
    /// # Errors
    /// The path can't be watched.
    pub fn on(path: &Path) -> std::io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let reads = WatchFlags::OPEN | WatchFlags::CLOSE | WatchFlags::ACCESS;
        inotify::add_watch(&watch, path, WatchFlags::ALL_EVENTS - reads)?;
        Ok(Self(watch))
    }

    /// What happened until `last` did; blocks for at most the deadline, after which everything until then is
    /// returned as an error.
    ///
    /// # Errors
    /// It didn't happen.
    pub fn until(
        &self,
        deadline: Duration,
        last: impl Fn(&Event) -> bool,
    ) -> std::io::Result<Vec<Event>> {
        let end = Instant::now() + deadline;
        let mut events = Vec::new();
        loop {
            events.extend(self.seen()?);
            if events.iter().any(&last) {
                return Ok(events);
            }
            let left = end.saturating_duration_since(Instant::now());
            let wait = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            if left.is_zero() || poll(&mut fds, Some(&wait))? == 0 {
                let missing = format!("what was awaited is not among {events:?}");
                return Err(std::io::Error::other(missing));
            }
        }
    }

    /// What happened so far.
    ///
    /// # Errors
    /// It can't be read.
    pub fn seen(&self) -> std::io::Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().unwrap_or_default();
                    events.push((event.events(), name.to_string_lossy().into_owned()));
                }
                Err(Errno::AGAIN) => return Ok(events),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
