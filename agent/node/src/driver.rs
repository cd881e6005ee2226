//! The link to the driver: made, used until it ends, and made again, for as long as the process lives.
//!
//! Invariant: nothing is said to a peer before the kernel has confirmed its uid. Volumes don't depend on the
//! link: they are served on while it is away.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sotto_handoff::handshake::{self, HandshakeError};
use sotto_handoff::link::{CallError, Handler, Link, LinkEnd};
use sotto_handoff::message::{Leaving, Role, Standby, frame::Body};
use sotto_handoff::packet::Connection;
use sotto_handoff::peer::{self, PeerError};
use sotto_handoff::socket;
use sotto_runtime::drain::Drain;
use tokio::sync::watch;

use crate::config::Driver;
use crate::readiness::Readiness;

/// Requests of the driver that are worked on at once; more are refused, and the driver asks again.
const MAX_REQUESTS: usize = 512;
/// First pause before another attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long the driver may take to let this agent go: it may have connections to fetch back first.
const LEAVING_DEADLINE: Duration = Duration::from_secs(20);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Nobody listens there, or this uid may not connect.
    #[error("{socket} can't be connected to: {error}")]
    Connect {
        /// The socket.
        socket: String,
        /// Why.
        error: io::Error,
    },
    /// Somebody else listens there.
    #[error("the driver's socket: {0}")]
    Peer(#[from] PeerError),
    /// It speaks, and doesn't agree.
    #[error("the driver: {0}")]
    Handshake(#[from] HandshakeError),
    /// It isn't a driver.
    #[error("what listens at the driver's socket is no driver: its role is {0:?}")]
    NotADriver(Role),
}

/// An agent's way out: the driver is asked, and says when it holds everything that this process holds. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Leave {
    asked: watch::Sender<bool>,
    granted: watch::Sender<bool>,
}

impl Default for Leave {
    fn default() -> Self {
        Self { asked: watch::Sender::new(false), granted: watch::Sender::new(false) }
    }
}

impl Leave {
    /// Asks, over this link or the next, and waits for the answer. False: none came in time.
    pub async fn ask(&self, patience: Duration) -> bool {
        self.asked.send_replace(true);
        let mut granted = self.granted.subscribe();
        let granted = granted.wait_for(|granted| *granted);
        tokio::time::timeout(patience, granted).await.is_ok_and(|granted| granted.is_ok())
    }

    async fn asked(&self) {
        // Its sender is this value's own.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }

    fn may_end(&self) {
        self.granted.send_replace(true);
    }
}

/// Keeps the link.
pub struct DriverLink<H> {
    driver: Driver,
    handler: Arc<H>,
    readiness: Readiness,
    drain: Drain,
    /// For what volumes ask of the driver.
    links: watch::Sender<Option<Link>>,
    /// What the driver says about the volumes of an agent whose place this one takes.
    standby: watch::Receiver<Option<Standby>>,
    leaving: Leave,
    /// That of the supervisor, the same for all of its workers.
    instance: String,
}

impl<H: Handler> DriverLink<H> {
    /// Nothing is connected before [`Self::run`].
    #[must_use]
    pub fn new(
        (driver, instance): (Driver, String),
        handler: H,
        links: watch::Sender<Option<Link>>,
        readiness: Readiness,
        standby: watch::Receiver<Option<Standby>>,
        leaving: Leave,
        drain: Drain,
    ) -> Self {
        let handler = Arc::new(handler);
        Self { driver, handler, readiness, drain, links, standby, leaving, instance }
    }

    /// Connects, serves, and connects again, until the drain begins.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let mut told = String::new();
        while !self.drain.has_begun() {
            match self.connected().await {
                Ok((connection, standby)) => {
                    told.clear();
                    pause = FIRST_PAUSE;
                    match self.served(connection, standby).await {
                        Some(end) => {
                            tracing::warn!(reason = %end.0, "the link to the driver ended")
                        }
                        None => return,
                    }
                }
                Err(error) => {
                    // Once for each reason: the driver may be away for long.
                    let reason = error.to_string();
                    if reason != told {
                        tracing::warn!(%reason, "the driver is not reached; trying on");
                        told = reason;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.drain.begun() => {}
            }
        }
    }

    /// The connection, and whether another agent serves this node's volumes.
    async fn connected(&self) -> Result<(Connection, bool), DriverError> {
        let connection = socket::connect(&self.driver.socket).await.map_err(|error| {
            DriverError::Connect { socket: self.driver.socket.display().to_string(), error }
        })?;
        peer::require_uid(&connection, self.driver.uid)?;
        let agreed = handshake::hello(&connection, Role::NodeAgent, &self.instance).await?;
        if agreed.role != Role::Driver {
            return Err(DriverError::NotADriver(agreed.role));
        }
        tracing::info!(version = agreed.version, driver = %agreed.software, "linked to the driver");
        Ok((connection, agreed.standby))
    }

    /// Serves the driver until the connection ends; nothing once the drain has begun.
    async fn served(&self, connection: Connection, standby: bool) -> Option<LinkEnd> {
        let kept = connection.as_fd().try_clone_to_owned();
        let (link, task) = Link::start(connection, Arc::clone(&self.handler), MAX_REQUESTS);
        let mut task = Box::pin(task);
        self.links.send_replace(Some(link.clone()));
        let ready = async {
            if standby {
                self.stood_by().await;
            }
            self.readiness.linked();
            std::future::pending::<()>().await;
        };
        let leave = async {
            self.leaving.asked().await;
            match link.call(Body::Leaving(Leaving {}), None, LEAVING_DEADLINE).await {
                Ok(_) | Err(CallError::Refused(_) | CallError::Unknown) => self.leaving.may_end(),
                // The next link asks again.
                Err(error) => {
                    tracing::debug!(%error, "the driver was not told that this agent leaves")
                }
            }
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = &mut task => Some(end),
            () = ready => None,
            () = leave => None,
            () = self.drain.begun() => None,
        };
        self.links.send_replace(None);
        if end.is_none() {
            Self::outlast(task, kept);
        }
        end
    }

    /// The driver takes the end of the link for the end of this process, and has the volumes served by another
    /// one then. So the link lasts exactly as long as the threads that serve: a request that one of them has
    /// read when another server begins would never be answered.
    fn outlast(task: impl Future<Output = LinkEnd> + Send + 'static, kept: io::Result<OwnedFd>) {
        // Closed by the kernel, after every thread.
        let _ = kept.map(IntoRawFd::into_raw_fd);
        // Its owner is the runtime: volumes may end while this process does.
        tokio::spawn(task);
    }
}

impl<H> DriverLink<H> {
    /// Until all of the other agent's volumes are held ready here.
    async fn stood_by(&self) {
        let mut standby = self.standby.clone();
        let done = |standby: &Option<Standby>| standby.as_ref().is_some_and(|it| it.missing == 0);
        loop {
            match &*standby.borrow_and_update() {
                standby if done(standby) => return,
                Some(Standby { missing, reason, .. }) => {
                    let waiting =
                        format!("{missing} volumes of another agent are not held ready: {reason}");
                    self.readiness.waits(waiting);
                }
                None => self
                    .readiness
                    .waits("the volumes of another agent are being prepared here".to_owned()),
            }
            if standby.changed().await.is_err() {
                std::future::pending::<()>().await; // its sender lives as long as the volumes
            }
        }
    }
}

#[cfg(test)]
mod tests;
