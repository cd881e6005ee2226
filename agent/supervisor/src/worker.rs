//! The worker's end of the socket.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, SocketType, sockopt};
use rustix::process::Signal;

use crate::message::{Kind, Packet, Received, receive, send};
use crate::signals;
use crate::{INSTANCE, RESTARTS};

/// How long the supervisor may take to say what it kept, and to take what it is given.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often [`Keeper::alive`] should be called.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// What a former worker left of one volume.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its FUSE connection.
    pub connection: Option<OwnedFd>,
    /// The memfd_secret with what the worker wrote.
    pub values: Option<OwnedFd>,
    /// When that was found to be good, in milliseconds since 1970.
    pub confirmed_ms: u64,
}

/// What a worker finds when it starts.
#[derive(Debug)]
pub struct TakenUp {
    /// Where to leave things.
    pub keeper: Keeper,
    /// By volume.
    pub kept: BTreeMap<String, Kept>,
    /// The same for all workers of one supervisor.
    pub instance: String,
    /// How many workers there were before this one.
    pub restarts: u64,
}

/// Gives things to the supervisor; cheap to clone. Without a supervisor it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Keeper(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    confirmed: Mutex<Confirmed>,
}

/// What is to be said with the next sign of life.
#[derive(Debug, Default)]
struct Confirmed {
    /// By volume.
    times: BTreeMap<String, u64>,
    /// The volume of which something was said last: the next one's turn is after it.
    said: String,
}

/// Lets the signals to end through, which come blocked from the supervisor: once whoever is to act on them is there.
///
/// # Errors
/// The kernel refused.
pub fn release_signals() -> io::Result<()> {
    signals::release()
}

/// Reads what was kept, if this process is a supervisor's worker. Call it while there is one thread.
///
/// # Errors
/// Standard input isn't the supervisor's socket, or it said nothing in time.
pub fn take_up() -> io::Result<Option<TakenUp>> {
    let Ok(instance) = std::env::var(INSTANCE) else { return Ok(None) };
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    if sockopt::socket_type(&socket)? != SocketType::SEQPACKET {
        let problem = format!("{INSTANCE} is set, and standard input is not a supervisor's socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // With the supervisor's end everything that it kept is gone: whoever comes next must find no other
    // server on the connections.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let kept = read_kept(&socket)?;
    // For a metric: what can't be read is none.
    let restarts = std::env::var(RESTARTS).ok().and_then(|text| text.parse().ok());
    let restarts = restarts.unwrap_or_default();
    let keeper = Keeper(Some(Arc::new(Link { socket, confirmed: Mutex::default() })));
    Ok(Some(TakenUp { keeper, kept, instance, restarts }))
}

fn read_kept(socket: &OwnedFd) -> io::Result<BTreeMap<String, Kept>> {
    let end = Instant::now() + DEADLINE;
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    loop {
        wait(socket.as_fd(), PollFlags::IN, end)?;
        match receive(socket, RecvFlags::DONTWAIT)? {
            Received::Message(message) => match message.kind {
                Kind::Connection => kept.entry(message.key).or_default().connection = message.fd,
                Kind::Values => {
                    let kept = kept.entry(message.key).or_default();
                    (kept.values, kept.confirmed_ms) = (message.fd, message.at_ms);
                }
                Kind::Last => return Ok(kept),
                Kind::Forget | Kind::Restoring | Kind::Restored | Kind::Alive | Kind::Confirmed => {
                }
            },
            Received::Strange => tracing::warn!("the supervisor sent something strange"),
            Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn wait(socket: BorrowedFd<'_>, flags: PollFlags, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut fds = [PollFd::new(&socket, flags)];
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

impl Keeper {
    /// Whether there is a supervisor.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves a volume's FUSE connection; the one before it is let go.
    ///
    /// # Errors
    /// The supervisor can't take it.
    pub fn keep_connection(&self, volume: &str, connection: impl AsFd) -> io::Result<()> {
        let fd = Some(connection.as_fd());
        self.tell(Packet { fd, ..Packet::of(Kind::Connection, volume) })
    }

    /// Leaves a memfd with what the next worker needs for a volume, and when that was found to be good, in milliseconds
    /// since 1970; the one before it is let go.
    ///
    /// # Errors
    /// The supervisor can't take it.
    pub fn keep_values(&self, volume: &str, values: impl AsFd, at_ms: u64) -> io::Result<()> {
        let fd = Some(values.as_fd());
        self.tell_instead(Packet { fd, at_ms, ..Packet::of(Kind::Values, volume) })
    }

    /// What was left of a volume was found to be good again. Said with the next sign of life: waking the supervisor for
    /// each of a thousand volumes costs more than a second of their age is worth.
    pub fn confirm(&self, volume: &str, at_ms: u64) {
        let Some(link) = &self.0 else { return };
        let mut confirmed = link.confirmed();
        match confirmed.times.get_mut(volume) {
            Some(known) => *known = at_ms,
            None => drop(confirmed.times.insert(volume.to_owned(), at_ms)),
        }
    }

    /// Nothing of this volume is needed any more.
    ///
    /// # Errors
    /// The supervisor can't be told.
    pub fn forget(&self, volume: &str) -> io::Result<()> {
        self.tell_instead(Packet::of(Kind::Forget, volume))
    }

    /// Runs `restore`; should the process end meanwhile, the next worker is not given this volume.
    ///
    /// # Errors
    /// The supervisor can't be told.
    pub fn while_restoring<T>(&self, volume: &str, restore: impl FnOnce() -> T) -> io::Result<T> {
        self.tell(Packet::of(Kind::Restoring, volume))?;
        let restored = restore();
        self.tell(Packet::of(Kind::Restored, volume))?;
        Ok(restored)
    }

    /// Says that the worker lives, and what was confirmed; from the first call on silence is taken for a hang.
    ///
    /// # Errors
    /// The supervisor can't be told.
    pub fn alive(&self) -> io::Result<()> {
        self.tell(Packet::of(Kind::Alive, ""))?;
        let Some(link) = &self.0 else { return Ok(()) };
        // Held meanwhile: what is left of a volume in this moment is said after what was confirmed of it before.
        let mut confirmed = link.confirmed();
        while let Some((volume, at_ms)) = confirmed.next() {
            let packet = Packet { at_ms, ..Packet::of(Kind::Confirmed, &volume) };
            match send(&link.socket, packet, SendFlags::DONTWAIT) {
                Ok(()) => confirmed.said(volume),
                // The rest is said the next time.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says what makes it pointless to confirm what was left before.
    fn tell_instead(&self, packet: Packet<'_>) -> io::Result<()> {
        let Some(link) = &self.0 else { return Ok(()) };
        let mut confirmed = link.confirmed();
        confirmed.times.remove(packet.key);
        self.tell(packet)
    }

    fn tell(&self, packet: Packet<'_>) -> io::Result<()> {
        let Some(link) = &self.0 else { return Ok(()) };
        let end = Instant::now() + DEADLINE;
        loop {
            match send(&link.socket, packet, SendFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(link.socket.as_fd(), PollFlags::OUT, end)?;
                }
                done => return done,
            }
        }
    }
}

impl Link {
    fn confirmed(&self) -> MutexGuard<'_, Confirmed> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Confirmed {
    fn next(&self) -> Option<(String, u64)> {
        let after = (Bound::Excluded(self.said.as_str()), Bound::Unbounded);
        let next =
            self.times.range::<str, _>(after).next().or_else(|| self.times.first_key_value());
        next.map(|(volume, at_ms)| (volume.clone(), *at_ms))
    }

    fn said(&mut self, volume: String) {
        self.times.remove(&volume);
        self.said = volume;
    }
}
