//! Volumes that a former worker served, served on by this one: nobody is asked, neither the driver nor the store.
//!
//! Invariant: what is restored has the numbers that it had: inodes, generations, modes and times are the same,
//! so the kernel notices nothing. What can't be restored is let go: the driver hands the volume out again, and
//! it is fetched anew. [`serving`] serves before the configuration is read; here they get their owners, before
//! anything else is asked of the volumes.

mod serving;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::IdentifierError;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretString;
use sotto_core::snapshot::Generation;
use sotto_proto::deposit::v1;
use sotto_store::plan::ObjectPlan;
use sotto_store::session::{LeaseId, Renewed};
use sotto_store::{Lease, VolumePlan};
use sotto_supervisor::Keeper;
use tokio::time::Instant;

use super::former::Former;
use super::held::{Held, Resumed};
use super::owner;
use super::registry::Found;
use super::request::VolumeSpec;
use super::settings::{Planned, Settings};
use super::turn::Turn;
use super::{Shared, Volumes};

pub use serving::ServedOn;

/// Why a volume is not restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("the former worker left no {0} of it")]
    Incomplete(&'static str),
    #[error("what the former worker left can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("what the former worker left is no message: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("what the former worker left has a wrong {0}")]
    Wrong(&'static str),
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    #[error("its class doesn't fit the configuration any more")]
    Class,
    #[error("its login can't be resumed")]
    Session,
    #[error("the volume is known already, or there are too many")]
    Known,
}

/// Volumes that are served and can't be gone on with: this process must end, so that the next one, which isn't left
/// them, serves the others.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} volumes that an earlier worker served can't be gone on with: another worker serves the others"
)]
pub struct Abandoned(usize);

impl Volumes {
    /// Goes on with what is served already. Returns how many volumes those are. `former` are settings that former
    /// logins were made by, beside those that these volumes are made with: see [`ServedOn::former_settings`].
    ///
    /// # Errors
    /// Some of them can't be gone on with; the supervisor keeps nothing of them any more.
    pub fn restore(
        &self,
        served: ServedOn,
        mut former: Vec<Arc<Settings>>,
    ) -> Result<usize, Abandoned> {
        former.push(Arc::clone(&self.0.services.settings));
        let keeper = &self.0.services.keeper;
        let (mut restored, mut abandoned) = (0, 0);
        for (volume, served) in served.0 {
            let done = keeper.while_restoring(&volume, || go_on(&self.0, served, &former));
            match done.map_err(RestoreError::from).and_then(|done| done) {
                Ok(()) => restored += 1,
                Err(error) => {
                    let_go(keeper, &volume, &error);
                    abandoned += 1;
                }
            }
        }
        if abandoned == 0 { Ok(restored) } else { Err(Abandoned(abandoned)) }
    }
}

fn let_go(keeper: &Keeper, volume: &str, error: &RestoreError) {
    tracing::warn!(volume, %error, "a volume is not served on: the driver hands it out anew");
    if let Err(error) = keeper.forget(volume) {
        tracing::warn!(volume, %error, "the supervisor could not be told");
    }
}

fn go_on(
    shared: &Arc<Shared>,
    served: serving::Volume,
    former: &[Arc<Settings>],
) -> Result<(), RestoreError> {
    let token = SecretString::new(served.left.pod_token.clone());
    let (held, again) = held(shared, &served, &token, former)?;
    let serving::Volume { spec, init, server, .. } = served;
    let found = shared.registry.find_or_add(&spec, shared.services.volume_limit);
    let Ok(Found::Added(registered, commands)) = found else { return Err(RestoreError::Known) };
    let owner = owner::Restored { spec, registered, commands, held, server, init, token, again };
    owner.spawn(shared);
    Ok(())
}

/// The volume as it was, with the turn that was under way.
fn held(
    shared: &Shared,
    served: &serving::Volume,
    token: &SecretString,
    settings: &[Arc<Settings>],
) -> Result<(Held, Option<Turn>), RestoreError> {
    let serving::Volume { left, confirmed_ms, spec, tree, old, turning, .. } = served;
    let planned = planned(shared, spec, left)?;
    let Planned { settings: own, plan, .. } = &planned;
    let store = own.stores.get(&plan.store).ok_or(RestoreError::Class)?;
    let session = store.resume(plan, token, &left.session).ok_or(RestoreError::Session)?;
    let former = formers(left, spec, token, settings);
    let resumed = Resumed {
        age: age_of(*confirmed_ms),
        last: Generation::new(left.last_generation).ok_or(RestoreError::Wrong("generation"))?,
        refused: places(plan, &left.refused),
        is_closed: left.closed,
        expiring: left.expiring.iter().map(|index| *index as usize).collect(),
        leases: left.leases.iter().map(lease).collect(),
        old: old.clone(),
        hidden: left.hidden.iter().filter_map(|number| Generation::new(*number)).collect(),
    };
    let policy = own.policy(spec);
    let again = turning.as_ref().map(|(current, before)| Turn {
        next: Some(Arc::clone(current)),
        again_from: Some(Arc::clone(before)),
        ..Turn::default()
    });
    let staged = again.as_ref().and_then(|turn| turn.next.clone());
    let held = Held::resumed(
        planned,
        (session, former),
        (Arc::clone(tree), staged),
        policy,
        resumed,
        time(*confirmed_ms),
    );
    Ok((held, again))
}

fn formers(
    left: &v1::Volume,
    spec: &VolumeSpec,
    token: &SecretString,
    settings: &[Arc<Settings>],
) -> Vec<Former> {
    let resumed = |left| {
        let former = Former::resumed(left, spec, token, settings);
        if former.is_none() {
            tracing::warn!(volume = %spec.volume, "a former login is not revoked: it lives until its own end");
        }
        former
    };
    left.former.iter().filter_map(resumed).collect()
}

fn places(plan: &VolumePlan, paths: &[String]) -> BTreeSet<usize> {
    let place = |path: &String| plan.objects.iter().position(|it| it.path.as_str() == path);
    paths.iter().filter_map(place).collect()
}

fn class(spec: &VolumeSpec, left: &v1::Volume) -> Result<SecretProviderClass, RestoreError> {
    let class = left.class.clone().ok_or(RestoreError::Incomplete("class"))?;
    Ok(SecretProviderClass {
        namespace: spec.identity.namespace.clone(),
        name: spec.class.clone(),
        provider: class.provider,
        parameters: class.parameters.into_iter().collect(),
        wants_secret_objects: false,
    })
}

/// Planned again, with the stores as they are configured now.
fn planned(shared: &Shared, spec: &VolumeSpec, left: &v1::Volume) -> Result<Planned, RestoreError> {
    let (settings, class) = (Arc::clone(&shared.services.settings), class(spec, left)?);
    if settings.left() != left.settings {
        return Err(RestoreError::Wrong("settings"));
    }
    let planned = Planned::of(settings, Arc::new(class), spec);
    let mut planned = planned.map_err(|_| RestoreError::Class)?;
    let plan = &mut planned.plan;
    if plan.objects.is_empty() {
        for name in left.class.iter().flat_map(|class| &class.named) {
            let path = ObjectPath::parse(name).map_err(|_| RestoreError::Wrong("object"))?;
            plan.objects.push(ObjectPlan { path, mode: None });
        }
    }
    Ok(planned)
}

fn lease(left: &v1::Lease) -> Lease {
    let since = Instant::now().checked_sub(age_of(left.since_ms)).unwrap_or_else(Instant::now);
    Lease {
        id: (!left.id.is_empty()).then(|| LeaseId::new(&left.id)),
        life: Renewed {
            duration: Duration::from_millis(left.duration_ms),
            since,
            renewable: left.renewable,
        },
        objects: left.objects.iter().map(|index| *index as usize).collect(),
    }
}

/// A clock that was set back meanwhile: as young as it can be.
fn age_of(milliseconds: u64) -> Duration {
    SystemTime::now().duration_since(time(milliseconds)).unwrap_or_default()
}

fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}
