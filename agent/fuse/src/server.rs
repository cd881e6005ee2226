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
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sotto_core::fuse_init::Negotiated;
use sotto_core::snapshot::Inode;

use crate::adapter::Adapter;
use crate::attach::{Device, attach};
use crate::audit::AuditSink;
use crate::tree::Tree;

/// Of the thread that waits for fuser's own, which has the platform's default.
const STACK_BYTES: usize = 64 << 10;
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
    device: Device,
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
        let handle = RandomState::new().build_hasher().finish();
        let adapter = Adapter::new(tree, audit, init.is_id_mapped(), handle);
        let session = attach(adapter, fuse, init, resend)?;
        let device = Device::of(&session);
        let end = Arc::new(Ending::default());
        let ending = Arc::clone(&end);
        let name: String = name.chars().take(LONGEST_NAME).collect();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        thread.spawn(move || {
            // fuser's thread inherits it: signals are the business of the process's own threads.
            block_signals();
            let end = match session.run() {
                Ok(()) => End::Disconnected,
                Err(error) => End::Failed(error.to_string()),
            };
            tracing::debug!(?end, "a FUSE server ended");
            ending.set(end);
        })?;
        Ok(Self { device, end })
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
