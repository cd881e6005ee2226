//! The task that answers one volume's requests with errors.
//!
//! Invariant: it is a task of the drain and never waits for anything but the device and its stop; when it
//! has ended, what it had read and not answered was given back to the queue, and its device is closed.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use sotto_core::fuse_init::READ_BUFFER_BYTES;
use sotto_core::identity::VolumeId;
use sotto_runtime::drain::Drain;
use sotto_runtime::metrics::Counted;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::answer::{self, Answer};
use super::device;

/// Its longest step is one answer: later than this something is very wrong.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The answering did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver still answers the volume's readers itself")]
pub(crate) struct StillAnswering;

/// A volume's readers are being answered; dropped, that ends soon.
#[derive(Debug)]
pub(super) struct Answering {
    stop: Option<oneshot::Sender<Infallible>>,
    ended: oneshot::Receiver<Infallible>,
}

impl Answering {
    /// Answers on `device`, a non-blocking clone, until it is stopped or the connection ends.
    ///
    /// # Errors
    /// The device can't be waited on.
    pub(super) fn start(
        drain: &Drain,
        volume: &VolumeId,
        device: OwnedFd,
        can_resend: bool,
        answered: Counted,
    ) -> io::Result<Self> {
        let device = device::watched(device)?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (volume, begun) = (volume.clone(), drain.clone());
        drain.spawn(async move {
            tokio::select! {
                error = answer_all(&device, can_resend, &answered) => {
                    tracing::debug!(%volume, %error, "nobody is left to be answered");
                }
                _ = stopped => {}
                () = begun.begun() => {}
            }
            if can_resend {
                // Nothing is lost with the device.
                let _ = device::resend(device.get_ref());
            }
            drop(device);
            drop(end);
        });
        Ok(Self { stop: Some(stop), ended })
    }

    /// Ends it, and waits until its device is closed.
    ///
    /// # Errors
    /// It did not end.
    pub(super) async fn stop(&mut self) -> Result<(), StillAnswering> {
        self.stop = None;
        match tokio::time::timeout(STOP_DEADLINE, &mut self.ended).await {
            Ok(Err(_)) => Ok(()), // nothing is ever sent: its end is the message
            Ok(Ok(never)) => match never {},
            Err(_) => Err(StillAnswering),
        }
    }
}

/// Returns why it can't go on.
async fn answer_all(device: &AsyncFd<OwnedFd>, can_resend: bool, answered: &Counted) -> io::Error {
    if can_resend && let Err(error) = device::resend(device.get_ref()) {
        return error;
    }
    let mut request = vec![0; READ_BUFFER_BYTES];
    loop {
        let read =
            device.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut request)?)).await;
        let size = match read {
            Ok(size) => size,
            // Its caller gave up while it was being read.
            Err(error) if is(&error, &[Errno::INTR, Errno::NOENT]) => continue,
            Err(error) => return error,
        };
        match answer::to(&request[..size]) {
            Answer::Error(reply) => match rustix::io::write(device.get_ref(), &reply) {
                // Not there any more: its caller was killed, or a RESEND took it back.
                Ok(_) => drop(answered.inc()),
                Err(Errno::NOENT) => {}
                Err(error) => return error.into(),
            },
            Answer::Nothing => {}
            Answer::NotOurs => return io::ErrorKind::InvalidData.into(),
        }
    }
}

fn is(error: &io::Error, errnos: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|raw| errnos.iter().any(|errno| errno.raw_os_error() == raw))
}
