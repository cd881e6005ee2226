//! The thread that serves one volume, and its end.
//!
//! A server ends when the connection does: unmounted everywhere, or aborted. Dropping [`Server`] doesn't
//! end it. If it ends otherwise, the mount still lives as long as somebody holds the connection's fd:
//! attach again, with `resend`.
#![expect(unsafe_code, reason = "pthread_sigmask")]

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::Errno;
use sotto_core::fuse_init::{Negotiated, READ_BUFFER_BYTES};
use sotto_core::snapshot::Inode;

use crate::audit::AuditSink;
use crate::device::Device;
use crate::dispatch::Dispatcher;
use crate::tree::Tree;
use crate::wire::reply::Reply;
use crate::wire::request::{Operation, Request};

/// Of a server's thread: it answers one request after another, and nothing of that goes deep.
const STACK_BYTES: usize = 128 << 10;
/// Of a write request, beside what is written: the kernel insists that one would fit.
const HEADERS_BYTES: usize = 80;
/// Linux keeps no more of a thread's name.
const LONGEST_NAME: usize = 15;

/// How a server came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The connection is gone: unmounted or aborted.
    Disconnected,
    /// The connection may live on, with nobody to answer.
    Failed(String),
}

/// A volume being served.
pub struct Server {
    device: Arc<Device>,
    end: Arc<Ending>,
}

impl Server {
    /// Serves `tree` on the FUSE connection `fuse`, whose INIT led to `init`. With `resend`, what a
    /// former server left unanswered comes again (where the kernel can: Linux 6.9). `name` is for lists
    /// of threads.
    ///
    /// # Errors
    /// The fd is no live FUSE connection, or no thread could be started.
    pub fn start(
        tree: Arc<Tree>,
        fuse: OwnedFd,
        init: &Negotiated,
        resend: bool,
        audit: Arc<dyn AuditSink>,
        name: &str,
    ) -> io::Result<Self> {
        if !audit.is_interested() {
            tree.expect_no_opens();
        }
        let handle = RandomState::new().build_hasher().finish();
        let dispatcher = Dispatcher::new(tree, audit, init.is_id_mapped(), handle);
        let device = Arc::new(Device::new(fuse)?);
        if resend && init.can_resend() {
            device.resend()?;
        }
        let end = Arc::new(Ending::default());
        let (serving, ending) = (Arc::clone(&device), Arc::clone(&end));
        let buffer = vec![0; READ_BUFFER_BYTES.max(init.max_write as usize + HEADERS_BYTES)];
        let name: String = name.chars().take(LONGEST_NAME).collect();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        thread.spawn(move || {
            // Signals are the business of the process's own threads.
            block_signals();
            let end = serve_until_its_end(&serving, &dispatcher, buffer);
            tracing::debug!(?end, "a FUSE server ended");
            ending.set(end);
        })?;
        Ok(Self { device, end })
    }

    /// Another fd of the connection.
    ///
    /// # Errors
    /// The process has no number left for it.
    pub fn connection(&self) -> io::Result<OwnedFd> {
        self.device.duplicate()
    }

    /// Makes the kernel drop what it has cached of `inode`. False if nobody refers to the inode.
    ///
    /// May wait for a read of that inode which is being served: never call it on the serving thread, and
    /// not on a thread that must not block.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn invalidate(&self, inode: Inode) -> io::Result<bool> {
        self.device.invalidate(inode)
    }

    /// Whether it doesn't serve any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.end.lock().end.is_some()
    }

    /// Completes when it doesn't serve any more.
    pub fn ended(&self) -> Ended {
        Ended { ending: Arc::clone(&self.end) }
    }

    /// Blocks until it doesn't serve any more; `None` after the deadline.
    #[must_use]
    pub fn wait_ended(&self, deadline: Duration) -> Option<End> {
        let slot = self.end.lock();
        let waited = self.end.changed.wait_timeout_while(slot, deadline, |it| it.end.is_none());
        let (slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        slot.end.clone()
    }
}

/// A panic ends this volume's server alone: its readers wait for the next one, the others read on.
fn serve_until_its_end(device: &Device, dispatcher: &Dispatcher, buffer: Vec<u8>) -> End {
    let serve = AssertUnwindSafe(|| serve(device, dispatcher, buffer));
    match std::panic::catch_unwind(serve) {
        Ok(Ok(())) => End::Disconnected,
        Ok(Err(error)) => End::Failed(error.to_string()),
        Err(_) => End::Failed("answering a request panicked".to_owned()),
    }
}

fn serve(device: &Device, dispatcher: &Dispatcher, mut buffer: Vec<u8>) -> io::Result<()> {
    while let Some(bytes) = device.receive(&mut buffer)? {
        let request = Request::parse(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(reply) = dispatcher.answer(&request)
            && let Err(error) = device.reply(request.unique, &reply)
        {
            // The kernel didn't take it; whoever asked must not wait for ever.
            tracing::error!(%error, "a reply was not taken by the kernel");
            device.reply(request.unique, &Reply::Error(Errno::EIO))?;
        }
        if request.operation == Operation::Destroy {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Default)]
struct Ending {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    end: Option<End>,
    wakers: Vec<Waker>,
}

impl Ending {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, end: End) {
        let mut slot = self.lock();
        slot.end = Some(end);
        let wakers = std::mem::take(&mut slot.wakers);
        drop(slot);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A server's end, to be awaited.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Ended {
    ending: Arc<Ending>,
}

impl Future for Ended {
    type Output = End;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let mut slot = self.ending.lock();
        if let Some(end) = &slot.end {
            return Poll::Ready(end.clone());
        }
        if !slot.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            slot.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

fn block_signals() {
    // SAFETY: `all` is written by sigfillset before it is read; a null third argument is allowed.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}
