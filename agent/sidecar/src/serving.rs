//! The parts that serve the pod's volume, made of its assignment: once a worker. The settings of a later assignment
//! come with the class.
//!
//! Invariant: trust, limits and times are those of an assignment; the token and the client certificate are the
//! pod's own; nobody else is asked for anything.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::clock::Clock;
use sotto_core::identity::{Audience, WorkloadIdentity};
use sotto_core::secret::SecretString;
use sotto_core::snapshot::SecretMemorySource;
use sotto_handoff::link::Handler as _;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Code, Token};
use sotto_handoff::refusal::Refusal;
use sotto_runtime::drain::Drain;
use sotto_runtime::metrics::AgentMetrics;
use sotto_store::assigned::ClientFiles;
use sotto_supervisor::Keeper;
use sotto_volume::audit::AuditLog;
use sotto_volume::cluster::{Answering, ClusterView, ReviewFault, Reviews};
use sotto_volume::driver::DriverCalls;
use sotto_volume::token::TokenVerifier;
use sotto_volume::volumes::{Deadlines, Services, Settings, VolumeLimit, Volumes};

use crate::assignment::{Assigned, AssignmentError};
use crate::beginning::Beginning;
use crate::candidate::Candidates;
use crate::classes::AssignedClasses;
use crate::reports::LogReports;
use crate::token::{LEEWAY, OwnToken, Stamp};
use crate::withdrawal::Withdrawal;

/// How often the token's file is looked at.
const LOOK: Duration = Duration::from_secs(3);
/// How long a volume's end may take: the rest of the pod's grace period may be short.
const DEADLINES: Deadlines = Deadlines {
    prepare: Duration::from_secs(110),
    request: Duration::from_secs(10),
    release: Duration::from_secs(2),
    revoke: Duration::from_secs(10),
    unserved: Duration::from_secs(120),
};
const ONE: VolumeLimit = VolumeLimit { count: 1, remedy: "a sidecar serves one volume" };

/// What is there before anything was assigned.
#[derive(Clone)]
pub struct Parts {
    /// The pod's token.
    pub token: PathBuf,
    /// The pod's own client certificate.
    pub client: Option<ClientFiles>,
    /// Where to leave what the next worker needs.
    pub keeper: Keeper,
    /// Whether the pod may have its secrets.
    pub withdrawal: Withdrawal,
    /// Memory for values.
    pub memory: Arc<dyn SecretMemorySource>,
    /// The audit log.
    pub audit: AuditLog,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What is asked of the driver.
    pub driver: DriverCalls,
    /// Owns every task.
    pub drain: Drain,
}

/// The parts that serve.
pub struct Serving {
    /// The volume.
    pub volumes: Volumes,
    /// Its class.
    pub classes: Arc<AssignedClasses>,
    /// The pod's token.
    pub token: OwnToken,
}

impl Serving {
    /// Makes them, and starts to look after the token.
    ///
    /// # Errors
    /// The assignment can't be used.
    pub async fn start(
        parts: &Parts,
        beginning: &Beginning,
        assigned: &Assigned,
    ) -> Result<Arc<Self>, Refusal> {
        let client = parts.client.clone();
        let (candidates, settings) = Candidates::new(client, beginning, assigned).await?;
        let audience = Audience::parse(assigned.basis.store.audience.as_str());
        let audience = audience.map_err(|error| AssignmentError::new(error.to_string()))?;
        let pod = candidates.pod().clone();
        let clock = Arc::clone(&parts.clock);
        let token = OwnToken::new(parts.token.clone(), audience, pod.clone(), clock);
        let (driver, withdrawal) = (parts.driver.clone(), parts.withdrawal.clone());
        let followed = (candidates, Arc::clone(&settings));
        let classes = AssignedClasses::new(driver, withdrawal, followed, beginning.clone());
        let classes = Arc::new(classes);
        let volumes = volumes(parts, settings, assigned, &pod, Arc::clone(&classes));
        let serving = Arc::new(Self { volumes, classes, token });
        parts.drain.spawn(look_after_token(
            Arc::clone(&serving),
            beginning.message().volume_id.clone(),
            parts.drain.clone(),
        ));
        Ok(serving)
    }
}

fn volumes(
    parts: &Parts,
    settings: Arc<Settings>,
    assigned: &Assigned,
    pod: &WorkloadIdentity,
    classes: Arc<AssignedClasses>,
) -> Volumes {
    let cluster = Arc::new(OfAssignment { own_users: assigned.own_users });
    Volumes::new(Services {
        node: pod.node.clone(),
        classes,
        reporter: Arc::new(LogReports),
        reviews: Reviews { cluster, stores: BTreeSet::new() },
        settings,
        verifier: TokenVerifier::of_own_token(LEEWAY, Arc::clone(&parts.clock)),
        memory: Arc::clone(&parts.memory),
        audit: parts.audit.clone(),
        keeper: parts.keeper.clone(),
        metrics: Arc::new(AgentMetrics::default()),
        clock: Arc::clone(&parts.clock),
        volume_limit: ONE,
        driver: parts.driver.clone(),
        deadlines: DEADLINES,
        drain: parts.drain.clone(),
    })
}

/// What `sotto-node` knows of the pod.
struct OfAssignment {
    own_users: bool,
}

impl ClusterView for OfAssignment {
    fn review<'a>(
        &'a self,
        _: &'a SecretString,
        _: &'a Audience,
        _: &'a WorkloadIdentity,
    ) -> Answering<'a, Result<(), ReviewFault>> {
        let fault = ReviewFault::Unavailable("a sidecar has no API server to ask".to_owned());
        Box::pin(std::future::ready(Err(fault)))
    }

    fn has_own_users<'a>(&'a self, _: &'a WorkloadIdentity) -> Answering<'a, bool> {
        Box::pin(std::future::ready(self.own_users))
    }
}

/// Hands each fresh token to the volume, to log in with when the store's token has ended.
async fn look_after_token(serving: Arc<Serving>, volume_id: String, drain: Drain) {
    let mut seen: Option<Stamp> = None;
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.begun() => return,
        }
        let stamp = serving.token.stamp().await;
        if stamp.is_none() || stamp == seen {
            continue;
        }
        if serving.hand_on_token(&volume_id).await {
            seen = stamp;
        }
    }
}

impl Serving {
    /// False: the volume can't take it yet.
    async fn hand_on_token(&self, volume_id: &str) -> bool {
        let mut tokens = match self.token.now().await {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::warn!(%error, "the fresh token is not used");
                // One that is not valid yet, or half written, is looked at again.
                return !error.passes();
            }
        };
        let token = Body::Token(Token {
            volume_id: volume_id.to_owned(),
            service_account_tokens: std::mem::take(&mut *tokens),
            publish_secrets: Vec::new(),
        });
        match self.volumes.handle(token, None).await {
            Ok(_) => true,
            // Not prepared, or not yet.
            Err(refusal) if matches!(refusal.code(), Code::NotFound | Code::Unavailable) => false,
            Err(refusal) => {
                tracing::warn!(%refusal, "the fresh token is not used");
                true
            }
        }
    }
}
