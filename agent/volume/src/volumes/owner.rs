//! The life of one volume, as a state machine with one task.
//!
//! ```text
//! Preparing --fetched--> Ready --Serve--> Serving --connection ended, Release--> ended
//!     |                   |  ^-- the server failed, the connection may live --'
//!     '-- failed: ended   '-- not served in time, Release: ended
//! ```
//!
//! Invariant: the task never waits for anything but its next event; what takes time is a future in `work`
//! that comes back as one. Whatever the end, the store's token is revoked and the values are wiped, but for
//! the end of the process: then readers keep what they have until a successor serves them.

mod asking;
mod ending;
mod leaving;
mod parting;
mod prolonging;
mod refresh;
mod replanning;
mod returning;
mod serving;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use sotto_fuse::{End, Negotiated, Server};
use sotto_store::StoreSession;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::demand::Refreshed;
use super::deposit::Fingerprint;
use super::error::VolumeError;
use super::held::Held;
use super::leasing::Prolonged;
use super::prepare::{Outcome, Preparation};
use super::registry::{Found, Letter, Registered};
use super::request::{Brought, Shown, VolumeSpec};
use super::showing::Showing;
use crate::audit::VolumeAudit;
use crate::classes::{ClassError, ClassNow};
use crate::token::VerifiedToken;
use asking::Attempt;
use ending::Ending;
pub(super) use leaving::{Restored, thread_name};
use refresh::{Retired, Turned};
pub(super) use replanning::FailedEdit;
use replanning::Replanned;
pub(super) use returning::Given;
use returning::PodToken;

/// Futures of one volume that may be under way before its mailbox has to wait.
const MOST_WORK: usize = 16;
/// Requests that may wait for one preparation.
const MOST_WAITING: usize = 64;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Arc<VolumeError>>>;

/// What a volume's owner is asked.
pub(super) enum Command {
    /// `shown` is what the mount shows, if the driver asks.
    Prepare {
        shown: Option<Shown>,
        reply: Reply<Showing>,
    },
    Serve {
        fuse: OwnedFd,
        init: Negotiated,
        resend: bool,
        reply: Reply<()>,
    },
    Token {
        brought: Brought,
        reply: Reply<()>,
    },
    Return {
        reply: Reply<Given>,
    },
    Refresh {
        reply: Reply<Refreshed>,
    },
    Release {
        reply: Reply<()>,
    },
}

/// What came of a future in `work`.
enum Done {
    Prepared(Box<Outcome>),
    Served(Result<Server, VolumeError>, Reply<()>),
    ServerEnded(End),
    Token(Result<VerifiedToken, VolumeError>, Reply<()>),
    Fetched(BTreeSet<usize>, Box<Attempt>),
    Prolonged(Box<Prolonged>),
    Turned(Box<Turned>),
    Retired(Retired),
    Class(Result<ClassNow, ClassError>),
    Replanned(Box<Result<Replanned, VolumeError>>),
    /// A former login was revoked, or could not be.
    Parted(Option<Arc<StoreSession>>),
    Nothing,
}

enum Event {
    Command(Command),
    Done(Done),
    Unserved,
    Wake,
    Drain,
}

enum State {
    Preparing { waiting: Vec<Reply<Showing>> },
    Ready { held: Box<Held>, until: Instant },
    Serving { held: Box<Held> },
}

impl State {
    fn held_mut(&mut self) -> Option<&mut Held> {
        match self {
            Self::Preparing { .. } => None,
            Self::Ready { held, .. } | Self::Serving { held } => Some(held),
        }
    }
}

struct Owner {
    shared: Arc<Shared>,
    spec: Arc<VolumeSpec>,
    audit: VolumeAudit,
    registered: Registered,
    commands: mpsc::Receiver<Letter>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    cancel: CancellationToken,
    state: State,
    pod_token: PodToken,
    /// Of the connection that is served.
    init: Option<Negotiated>,
    /// Of what the supervisor was left.
    left_last: Fingerprint,
}

/// Asks the volume's owner to prepare it, or starts one. A `reply` that is dropped unanswered says that the
/// owner ended in this moment.
pub(super) fn prepare(
    shared: &Arc<Shared>,
    spec: &Arc<VolumeSpec>,
    brought: &Arc<Brought>,
    deadline: Duration,
    shown: Shown,
    reply: Reply<Showing>,
) -> Result<(), VolumeError> {
    if shared.services.drain.has_begun() {
        return Err(VolumeError::ShuttingDown);
    }
    match shared.registry.find_or_add(spec, shared.services.volume_limit)? {
        Found::Known(mailbox) => {
            match mailbox.try_send(Box::new(Command::Prepare { shown: Some(shown), reply })) {
                Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
                Err(TrySendError::Full(_)) => Err(VolumeError::Busy(spec.volume.clone())),
            }
        }
        Found::Added(registered, commands) => {
            let mut owner = Owner::new(shared, spec, registered, commands, reply);
            owner.begin(Arc::clone(brought), deadline, shown);
            shared.services.drain.spawn(owner.run());
            Ok(())
        }
    }
}

impl Owner {
    fn new(
        shared: &Arc<Shared>,
        spec: &Arc<VolumeSpec>,
        registered: Registered,
        commands: mpsc::Receiver<Letter>,
        reply: Reply<Showing>,
    ) -> Self {
        let log = shared.services.audit.clone();
        Self {
            shared: Arc::clone(shared),
            audit: VolumeAudit::new(log, &spec.volume, &spec.identity),
            spec: Arc::clone(spec),
            registered,
            commands,
            work: FuturesUnordered::new(),
            cancel: CancellationToken::new(),
            state: State::Preparing { waiting: vec![reply] },
            pod_token: PodToken::None,
            init: None,
            left_last: Fingerprint::default(),
        }
    }

    fn begin(&mut self, brought: Arc<Brought>, deadline: Duration, shown: Shown) {
        self.pod_token = PodToken::Arrived(Arc::clone(&brought));
        let preparation = Preparation {
            shared: Arc::clone(&self.shared),
            spec: Arc::clone(&self.spec),
            audit: self.audit.clone(),
            end: Instant::now() + deadline,
            deadline,
            shown,
            settings: Arc::clone(&self.shared.services.settings),
            cancel: self.cancel.clone(),
        };
        self.work.push(Box::pin(async move {
            Done::Prepared(Box::new(preparation.run(brought).await))
        }));
    }

    async fn run(mut self) {
        tracing::debug!(volume = %self.spec.volume, pod = %self.spec.identity, "preparing");
        let ending = loop {
            let event = self.next().await;
            if let ControlFlow::Break(ending) = self.step(event) {
                break ending;
            }
        };
        self.end(ending).await;
    }

    async fn next(&mut self) -> Event {
        let (unserved, wake) = match &self.state {
            State::Ready { until, .. } => (Some(*until), None),
            State::Preparing { .. } => (None, None),
            State::Serving { held } => (None, held.wake_at()),
        };
        let has_room = self.work.len() < MOST_WORK;
        tokio::select! {
            () = self.shared.services.drain.begun() => Event::Drain,
            Some(done) = self.work.next() => Event::Done(done),
            Some(command) = self.commands.recv(), if has_room => Event::Command(*command),
            () = sleep_until(unserved) => Event::Unserved,
            () = sleep_until(wake), if has_room => Event::Wake,
        }
    }

    fn step(&mut self, event: Event) -> ControlFlow<Ending> {
        // After these something may be different that the next worker needs.
        let changes = matches!(
            event,
            Event::Done(
                Done::Token(..)
                    | Done::Fetched(..)
                    | Done::Prolonged(_)
                    | Done::Turned(_)
                    | Done::Retired(_)
                    | Done::Parted(_)
            )
        );
        let next = self.handle(event);
        if changes && next.is_continue() {
            self.leave_values();
        }
        next
    }

    fn handle(&mut self, event: Event) -> ControlFlow<Ending> {
        match event {
            Event::Command(Command::Prepare { shown, reply }) => return self.join(shown, reply),
            Event::Command(Command::Serve { fuse, init, resend, reply }) => {
                self.serve(fuse, init, resend, reply);
            }
            Event::Command(Command::Token { brought, reply }) => self.verify(brought, reply),
            Event::Command(Command::Return { reply }) => self.give_back(reply),
            Event::Command(Command::Refresh { reply }) => self.refresh_on_demand(reply),
            Event::Command(Command::Release { reply }) => {
                return ControlFlow::Break(Ending::Released(reply));
            }
            Event::Done(Done::Prepared(outcome)) => return self.prepared(*outcome),
            Event::Done(Done::Served(served, reply)) => self.served(served, reply),
            Event::Done(Done::ServerEnded(end)) => return self.server_ended(&end),
            Event::Done(Done::Token(token, reply)) => self.renewed(token, reply),
            Event::Done(Done::Fetched(asked, attempt)) => self.fetched(&asked, *attempt),
            Event::Done(Done::Prolonged(prolonged)) => self.prolonged(*prolonged),
            Event::Done(Done::Turned(turned)) => self.turned(*turned),
            Event::Done(Done::Retired(retired)) => self.retired(retired),
            Event::Done(Done::Class(class)) => self.class_seen(class),
            Event::Done(Done::Replanned(replanned)) => self.replanned(*replanned),
            Event::Done(Done::Parted(session)) => self.parted(session.as_ref()),
            Event::Done(Done::Nothing) => {
                if let Some(held) = self.state.held_mut() {
                    held.is_busy = false;
                }
            }
            Event::Wake => self.wake(),
            Event::Unserved => return ControlFlow::Break(Ending::Unserved),
            Event::Drain => return ControlFlow::Break(Ending::Drained),
        }
        ControlFlow::Continue(())
    }

    /// A Prepare for a volume that is known: it waits with the first, or has its answer.
    fn join(&mut self, shown: Option<Shown>, reply: Reply<Showing>) -> ControlFlow<Ending> {
        match &mut self.state {
            State::Preparing { waiting } if waiting.len() < MOST_WAITING => waiting.push(reply),
            State::Preparing { .. } => {
                answer(reply, Err(VolumeError::Busy(self.spec.volume.clone())));
            }
            State::Ready { held, until } => {
                if shown.is_some_and(|shown| !held.continues(&shown)) {
                    // Another agent has turned meanwhile. The reply is dropped: the request begins anew.
                    return ControlFlow::Break(Ending::Unserved);
                }
                *until = Instant::now() + self.shared.services.deadlines.unserved;
                answer(reply, Ok(held.shown()));
            }
            State::Serving { held } => answer(reply, Ok(held.shown())),
        }
        ControlFlow::Continue(())
    }

    fn prepared(&mut self, outcome: Outcome) -> ControlFlow<Ending> {
        let mut held = match outcome.result {
            Ok(held) => held,
            Err(error) => {
                return ControlFlow::Break(Ending::Failed(Arc::new(error), outcome.orphan));
            }
        };
        self.audit.set_store(&held.plan.store);
        self.pod_token.is_good_for(&held.plan.audience);
        held.take_place();
        if let Some(place) = &held.place {
            held.turning.spread(place.part);
        }
        if held.pending.as_ref().is_some_and(|(_, turn)| turn.again_from.is_some()) {
            // The store may have something newer than what was being turned to.
            held.turning.look_soon();
        }
        let showing = held.shown();
        let until = Instant::now() + self.shared.services.deadlines.unserved;
        let ready = State::Ready { held: Box::new(held), until };
        if let State::Preparing { waiting } = std::mem::replace(&mut self.state, ready) {
            for reply in waiting {
                answer(reply, Ok(showing.clone()));
            }
        }
        ControlFlow::Continue(())
    }
}

/// Stands for a state while it is being changed.
fn nothing() -> State {
    State::Preparing { waiting: Vec::new() }
}

/// Whoever asked may have given up.
fn answer<T>(reply: Reply<T>, answer: Result<T, VolumeError>) {
    let _ = reply.send(answer.map_err(Arc::new));
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
