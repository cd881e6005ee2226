//! Signals as something to poll: blocked, and read from a signalfd.
#![expect(unsafe_code, reason = "sigprocmask and signalfd")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Signal;

/// Ask the process to end.
const TO_END: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// Unblocks everything: a process inherits what its parent has blocked, over an exec too.
pub(crate) fn release() -> io::Result<()> {
    // SAFETY: `set` is written by sigemptyset before it is read; a null third argument is allowed.
    let result = unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The signals that were taken.
pub(crate) struct Signals(OwnedFd);

/// What has arrived since the last look.
pub(crate) enum Arrived {
    /// A child changed its state, or nothing.
    Child,
    /// The process is to end.
    ToEnd(Signal),
}

impl Signals {
    /// Blocks them in this thread and reads them from now on. A child starts with them blocked: see
    /// [`release`].
    pub(crate) fn take() -> io::Result<Self> {
        // SAFETY: `set` is written by sigemptyset before it is read; a null third argument is allowed;
        // a non-negative result of signalfd is a new fd that we own.
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in TO_END.into_iter().chain([Signal::CHILD]) {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            let fd = libc::signalfd(-1, set.as_ptr(), flags);
            if fd < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(Self(OwnedFd::from_raw_fd(fd)))
            }
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Reads all that have arrived.
    pub(crate) fn read(&self) -> io::Result<Arrived> {
        let mut arrived = Arrived::Child;
        loop {
            let mut info = [0; size_of::<libc::signalfd_siginfo>()];
            match rustix::io::read(&self.0, &mut info) {
                Ok(size) if size == info.len() => {
                    // ssi_signo is the first field.
                    let number = info.first_chunk().map(|first| u32::from_ne_bytes(*first));
                    let is = |signal: &Signal| number == u32::try_from(signal.as_raw()).ok();
                    if let Some(signal) = TO_END.into_iter().find(is) {
                        arrived = Arrived::ToEnd(signal);
                    }
                }
                Ok(_) | Err(Errno::AGAIN) => return Ok(arrived),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
