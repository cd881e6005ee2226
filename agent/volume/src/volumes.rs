//! Every volume of this agent: what the driver asks about them, and who answers.
//!
//! Invariant: a volume has one owner task, reached through a bounded mailbox; nothing else changes it. A
//! volume id is known with one pod and one set of attributes, or not at all. Every request ends by its
//! deadline. This module finds the owner; `owner` is the life of one volume.

mod continuing;
mod counting;
mod demand;
mod deposit;
mod error;
mod former;
mod gate;
mod handler;
mod held;
mod leasing;
mod owner;
mod prepare;
mod refusal;
mod registry;
mod report;
mod request;
mod resolve;
mod restore;
mod settings;
mod showing;
mod status;
mod turn;
mod turning;
mod wipe;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::clock::Clock;
use sotto_core::identity::{NodeName, VolumeId};
use sotto_core::snapshot::SecretMemorySource;
use sotto_fuse::Negotiated;
use sotto_handoff::link::Answer;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{self, Prepare, Prepared, Release};
use sotto_handoff::message::{Return, Returned, Serve, Token};
use sotto_runtime::drain::Drain;
use sotto_runtime::metrics::AgentMetrics;
use sotto_runtime::tidy::Tidy;
use sotto_supervisor::Keeper;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::audit::AuditLog;
use crate::classes::ClassSource;
use crate::cluster::Reviews;
use crate::driver::DriverCalls;
use crate::reporter::PodReporter;
use crate::token::TokenVerifier;
use owner::Command;
use registry::Registry;
use request::{Brought, Shown, VolumeSpec};
use showing::Showing;

pub use demand::{REFRESH_DEADLINE, Refreshed, RefreshedVolume};
pub use error::{ObjectFault, VolumeError};
pub use request::{RequestError, identity};
pub use resolve::{Resolution, Unresolved};
pub use restore::{Abandoned, ServedOn};
pub use settings::Settings;

/// How often a request looks for an owner that doesn't end in this very moment.
const TRIES: usize = 3;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Prepare, whatever the driver says; kubelet gives up after 2 min.
    pub prepare: Duration,
    /// Serve and Token.
    pub request: Duration,
    /// Each part of a Release that the driver waits for.
    pub release: Duration,
    /// The revocation of a store's token, whether somebody waits for it or not.
    pub revoke: Duration,
    /// From Prepared to Serve: after that a volume is given up.
    pub unserved: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            prepare: Duration::from_secs(110),
            request: Duration::from_secs(10),
            release: Duration::from_secs(2),
            revoke: Duration::from_secs(15),
            unserved: Duration::from_secs(120),
        }
    }
}

/// How many volumes there may be at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeLimit {
    /// So many.
    pub count: usize,
    /// What the administrator does where that isn't enough.
    pub remedy: &'static str,
}

/// What volumes are made with.
pub struct Services {
    /// The node that this agent runs on.
    pub node: NodeName,
    /// The SecretProviderClasses.
    pub classes: Arc<dyn ClassSource>,
    /// Is told about pods and their volumes.
    pub reporter: Arc<dyn PodReporter>,
    /// What only the API server knows.
    pub reviews: Reviews,
    /// What the administrator set, for classes that come without.
    pub settings: Arc<Settings>,
    /// Believes tokens.
    pub verifier: TokenVerifier,
    /// Memory for values.
    pub memory: Arc<dyn SecretMemorySource>,
    /// The audit log.
    pub audit: AuditLog,
    /// Where to leave what the next worker needs.
    pub keeper: Keeper,
    /// What is counted.
    pub metrics: Arc<AgentMetrics>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// How many volumes.
    pub volume_limit: VolumeLimit,
    /// Who turns volumes.
    pub driver: DriverCalls,
    /// How long.
    pub deadlines: Deadlines,
    /// Owns the volumes' tasks; once it has begun no volume is prepared any more.
    pub drain: Drain,
}

struct Shared {
    services: Services,
    registry: Registry,
    /// What the driver last said about another agent's volumes.
    standby: watch::Sender<Option<message::Standby>>,
    tidy: Tidy,
}

/// All volumes; cheap to clone.
#[derive(Clone)]
pub struct Volumes(Arc<Shared>);

impl Volumes {
    /// No volume yet.
    #[must_use]
    pub fn new(services: Services) -> Self {
        let (registry, standby) = (Registry::default(), watch::Sender::new(None));
        let tidy = Tidy::default();
        Self(Arc::new(Shared { services, registry, standby, tidy }))
    }

    /// Who is told when a volume has gone; to be run by the process.
    #[must_use]
    pub fn tidy(&self) -> Tidy {
        self.0.tidy.clone()
    }

    /// What the driver says about the volumes of another agent whose place this one is about to take.
    #[must_use]
    pub fn standby(&self) -> watch::Receiver<Option<message::Standby>> {
        self.0.standby.subscribe()
    }

    /// How many volumes there are, in preparation or served.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.registry.count()
    }

    async fn prepare(&self, message: Prepare) -> Result<Prepared, Arc<VolumeError>> {
        let services = &self.0.services;
        let request = request::read(message, &services.node, services.deadlines.prepare)
            .map_err(VolumeError::Request)?;
        let end = Instant::now() + request.deadline;
        let (spec, brought) = (Arc::new(request.spec), Arc::new(request.brought));
        let own_users = services.reviews.cluster.has_own_users(&spec.identity);
        let showing = self.prepare_volume(&spec, &brought, end, (request.shown, request.deadline));
        let (own_users, showing) = tokio::join!(own_users, showing);
        Ok(Prepared { own_users, ..prepared(&showing?) })
    }

    async fn prepare_volume(
        &self,
        spec: &Arc<VolumeSpec>,
        brought: &Arc<Brought>,
        end: Instant,
        (shown, deadline): (Shown, Duration),
    ) -> Result<Showing, Arc<VolumeError>> {
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let left = end.saturating_duration_since(Instant::now());
            owner::prepare(&self.0, spec, brought, left, shown.clone(), reply)?;
            match tokio::time::timeout_at(end, answer).await {
                Ok(Ok(showing)) => return showing,
                // Its owner ended before it read the request: there will be another one.
                Ok(Err(_)) => {}
                Err(_) => {
                    let what = "the secrets were not fetched";
                    return Err(VolumeError::Deadline { what, deadline }.into());
                }
            }
        }
        Err(VolumeError::Ending(spec.volume.clone()).into())
    }

    async fn serve(&self, message: Serve, fd: Option<OwnedFd>) -> Result<(), Arc<VolumeError>> {
        let volume = request::volume(&message.volume_id).map_err(VolumeError::Request)?;
        let fuse = fd.ok_or(VolumeError::NoConnection)?;
        let init = message.init.map(negotiated).ok_or(VolumeError::NoConnection)?;
        let resend = message.resend;
        let deadline = self.0.services.deadlines.request;
        self.ask(&volume, "the volume was not served", deadline, |reply| Command::Serve {
            fuse,
            init,
            resend,
            reply,
        })
        .await?
        .ok_or_else(|| VolumeError::Unknown(volume.clone()))?;
        report::served(&self.0, &volume).await;
        Ok(())
    }

    async fn token(&self, message: Token) -> Result<(), Arc<VolumeError>> {
        let brought = Brought::new(message.service_account_tokens, message.publish_secrets);
        let volume = request::volume(&message.volume_id).map_err(VolumeError::Request)?;
        let deadline = self.0.services.deadlines.request;
        let command = |reply| Command::Token { brought, reply };
        self.ask(&volume, "the token was not taken", deadline, command)
            .await
            .inspect_err(|error| report::token_not_taken(&self.0, &volume, error))?
            .ok_or_else(|| VolumeError::Unknown(volume).into())
    }

    /// Gives a restarted driver what it lost of a volume that is served here.
    async fn give_back(&self, message: &Return) -> Result<Answer, Arc<VolumeError>> {
        let volume = request::volume(&message.volume_id).map_err(VolumeError::Request)?;
        let deadline = self.0.services.deadlines.request;
        let what = "the volume was not given back";
        let given = self.ask(&volume, what, deadline, |reply| Command::Return { reply }).await?;
        let mut given = given.ok_or(VolumeError::Unknown(volume))?;
        let Prepared { generation, layout, object_count, content, objects, .. } =
            prepared(&given.shown);
        let service_account_tokens = std::mem::take(&mut *given.tokens);
        let returned =
            Returned { generation, layout, object_count, service_account_tokens, content, objects };
        Ok(Answer { body: Body::Returned(returned), fd: Some(given.connection) })
    }

    /// A volume that isn't known is released already.
    async fn release(&self, message: &Release) -> Result<(), Arc<VolumeError>> {
        let volume = request::volume(&message.volume_id).map_err(VolumeError::Request)?;
        let deadline = 3 * self.0.services.deadlines.release;
        let what = "the volume was not released";
        let spec = self.0.registry.spec(&volume);
        self.ask(&volume, what, deadline, |reply| Command::Release { reply }).await?;
        report::released(&self.0, spec);
        Ok(())
    }

    /// Releases every volume, as if the driver had said so: for a process whose volumes end with it. Each ends
    /// within the deadlines; what takes longer to revoke goes on in the drain.
    pub async fn release_all(&self) {
        let released = self.0.registry.ids().into_iter().map(|volume| async move {
            let release = Release { volume_id: volume.to_string() };
            if let Err(error) = self.release(&release).await {
                tracing::warn!(%volume, %error, "a volume was not released in time");
            }
        });
        futures::future::join_all(released).await;
    }

    /// Asks the volume's owner; `None` if there is none, or if it ended before it answered.
    async fn ask<T>(
        &self,
        volume: &VolumeId,
        what: &'static str,
        deadline: Duration,
        command: impl FnOnce(oneshot::Sender<Result<T, Arc<VolumeError>>>) -> Command,
    ) -> Result<Option<T>, Arc<VolumeError>> {
        let Some(mailbox) = self.0.registry.mailbox(volume) else { return Ok(None) };
        let (reply, answer) = oneshot::channel();
        match mailbox.try_send(Box::new(command(reply))) {
            Ok(()) => {}
            Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => return Ok(None),
            Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => {
                return Err(VolumeError::Busy(volume.clone()).into());
            }
        }
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer.map(Some),
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(VolumeError::Deadline { what, deadline }.into()),
        }
    }
}

fn prepared(showing: &Showing) -> Prepared {
    Prepared {
        objects: showing.objects(),
        object_count: u32::try_from(showing.versions.len()).unwrap_or(u32::MAX),
        generation: showing.generation.get(),
        layout: showing.layout(),
        own_users: false,
        content: showing.content,
    }
}

fn negotiated(init: message::Init) -> Negotiated {
    Negotiated {
        major: init.major,
        minor: init.minor,
        max_readahead: init.max_readahead,
        flags: init.flags,
        max_write: init.max_write,
    }
}

#[cfg(test)]
mod tests;
