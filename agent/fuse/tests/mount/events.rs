//! inotify events as comparable values.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::volume::DEADLINE;

/// Watches one path.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn on(path: &Path) -> Self {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let read_only = WatchFlags::OPEN | WatchFlags::CLOSE | WatchFlags::ACCESS;
        inotify::add_watch(&watch, path, WatchFlags::ALL_EVENTS - read_only).unwrap();
        Self(watch)
    }

    /// Everything up to now, without waiting: the operations that cause events have returned.
    pub(crate) fn seen(&self) -> Vec<(ReadFlags, String)> {
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().unwrap_or_default();
                    events.push((event.events(), name.to_str().unwrap().to_owned()));
                }
                Err(Errno::AGAIN) => return events,
                Err(error) => panic!("inotify: {error}"),
            }
        }
    }

    /// Waits for at least one event.
    pub(crate) fn wait(&self) -> Vec<(ReadFlags, String)> {
        let deadline = Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&deadline)).unwrap(), 1, "no event");
        self.seen()
    }
}
