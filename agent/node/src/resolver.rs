//! What a sidecar is to serve, and by whom it believes it: the answers to Resolve.
//!
//! Invariant: the class and the administrator's settings leave this process, and nothing else: no token, no key,
//! no value. A pod that the API server doesn't show with Sotto's sidecar gets nothing; while that can't be known,
//! nothing either. What is said of a volume is said once, not with each of its sidecar's refreshes.

mod pods;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use sotto_core::clock::milliseconds;
use sotto_core::identity::VolumeId;
use sotto_core::rotation::OnRevoke;
use sotto_handoff::link::{Answer, Handler};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{
    AssignedClass, AssignedLimits, AssignedRefresh, Assignment, Code, Resolve, Resolved,
};
use sotto_handoff::refusal::Refusal;
use sotto_store::Stores;
use sotto_store::assigned::AssignError;
use sotto_volume::volumes::{Resolution, Volumes};

pub use pods::{PodCheck, SidecarPods};

/// Largest assignment; a packet of the driver holds it beside the rest of a Prepare.
const MOST_BYTES: usize = 128 << 10;
/// Volumes that it is known of what was said of them.
const MOST_TOLD: usize = 4_096;

/// Answers the driver: Resolve itself, everything else by the volumes.
pub struct Requests {
    volumes: Volumes,
    resolver: Resolver,
}

impl Requests {
    /// Answers for these volumes, with these stores. `pods`: who knows which pod has a sidecar; without a cluster
    /// nobody does, and every pod passes.
    #[must_use]
    pub fn new(volumes: Volumes, stores: Arc<Stores>, pods: Option<Arc<dyn PodCheck>>) -> Self {
        let resolver = Resolver { volumes: volumes.clone(), stores, pods, told: Mutex::default() };
        Self { volumes, resolver }
    }
}

impl Handler for Requests {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        match body {
            Body::Resolve(message) => {
                let assignment = Some(self.resolver.resolve(message).await?);
                Ok(Body::Resolved(Resolved { assignment }).into())
            }
            body => self.volumes.handle(body, fd).await,
        }
    }
}

struct Resolver {
    volumes: Volumes,
    stores: Arc<Stores>,
    pods: Option<Arc<dyn PodCheck>>,
    /// What was said of each volume last, as a fingerprint.
    told: Mutex<HashMap<VolumeId, u64>>,
}

impl Resolver {
    async fn resolve(&self, message: Resolve) -> Result<Assignment, Refusal> {
        let resolution = match self.volumes.resolve(message).await {
            Ok(resolution) => resolution,
            Err(unresolved) => {
                let said = unresolved.refusal.message();
                if unresolved.volume().is_some_and(|volume| self.is_new(volume, &said)) {
                    self.volumes.audit_unresolved(&unresolved);
                }
                return Err(unresolved.refusal);
            }
        };
        let assigned = tokio::time::timeout_at(resolution.end, self.assign(&resolution)).await;
        let late = |_| Refusal::new(Code::DeadlineExceeded, "the volume was not resolved in time");
        let assigned = assigned.map_err(late).and_then(|assigned| assigned);
        let said = (resolution.warnings(), assigned.as_ref().err().map(Refusal::message));
        if self.is_new(resolution.volume(), &said) {
            self.volumes.audit_resolved(&resolution, assigned.as_ref().err());
            self.volumes.tell_warnings(&resolution);
        }
        assigned
    }

    async fn assign(&self, resolution: &Resolution) -> Result<Assignment, Refusal> {
        let own_users = match &self.pods {
            Some(pods) => pods.check(resolution.pod()).await?,
            None => false,
        };
        let (stores, plan) = (Arc::clone(&self.stores), resolution.plan.clone());
        // It reads the CA's file.
        let store = tokio::task::spawn_blocking(move || stores.assign(&plan)).await;
        let store = store.map_err(|_| Refusal::new(Code::Internal, "the store can't be read"))?;
        let store = store.map_err(|error| told(&error))?;
        let (class, limits) = (&resolution.class, &resolution.limits);
        let assignment = Assignment {
            class: Some(AssignedClass {
                provider: class.provider.clone(),
                parameters: class.parameters.clone().into_iter().collect(),
            }),
            store: Some(store),
            limits: Some(AssignedLimits {
                object_bytes: limits.object_bytes as u64,
                volume_bytes: limits.volume_bytes as u64,
                objects: limits.objects as u64,
            }),
            refresh: Some(refresh(resolution)),
            own_users,
        };
        match assignment.encoded_len() {
            bytes if bytes > MOST_BYTES => {
                let message = format!(
                    "SecretProviderClass {} and the CA of its store have {bytes} bytes together: at most \
                     {MOST_BYTES} can be given to a sidecar",
                    class.name
                );
                Err(Refusal::new(Code::ResourceExhausted, &message))
            }
            _ => Ok(assignment),
        }
    }

    fn is_new(&self, volume: &VolumeId, said: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        said.hash(&mut hasher);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_TOLD && !told.contains_key(volume) {
            // Said once more, rather than kept for ever.
            told.clear();
        }
        let said = hasher.finish();
        told.insert(volume.clone(), said) != Some(said)
    }
}

fn refresh(resolution: &Resolution) -> AssignedRefresh {
    AssignedRefresh {
        interval_ms: milliseconds(resolution.refresh.interval),
        max_stale_ms: milliseconds(resolution.refresh.max_stale),
        until_max_stale: resolution.refresh.on_revoke == OnRevoke::UntilMaxStale,
    }
}

fn told(error: &AssignError) -> Refusal {
    let code = match error {
        AssignError::Provider(_) => Code::FailedPrecondition,
        AssignError::Ca { .. } => Code::Unavailable,
    };
    Refusal::new(code, &error.to_string())
}

#[cfg(test)]
mod tests;
