//! One pod's part at a provider: its freshest token, its secrets, what the last answer held.
//!
//! A provider keeps no login for us: there is nothing to renew and nothing to revoke.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sotto_core::secret::SecretString;
use sotto_core::snapshot::Object;
use sotto_proto::provider::v1alpha1::{MountResponse, ObjectVersion};
use tokio::time::Instant;

use super::client::{self, CallError};
use super::error::{Asker, touches_target};
use super::files::{self, Known};
use super::{ProviderError, Shared, attributes};
use crate::error::{ObjectError, StoreError};
use crate::plan::{PlanSource, ProviderPlan, Subject, VolumePlan};
use crate::session::{Fetch, LeaseId, PublishSecrets, Renewed, SecretSession, TokenLife};

/// One pod at a provider.
pub(super) struct ProviderSession {
    shared: Arc<Shared>,
    subject: Subject,
    source: ProviderPlan,
    jwt: Mutex<Arc<SecretString>>,
    secrets: Mutex<Arc<PublishSecrets>>,
    known: Mutex<Known>,
}

/// What a request is made with.
struct Credentials {
    jwt: Arc<SecretString>,
    secrets: Arc<PublishSecrets>,
}

impl ProviderSession {
    pub(super) fn new(
        shared: Arc<Shared>,
        subject: Subject,
        source: &ProviderPlan,
        jwt: &SecretString,
    ) -> Self {
        Self {
            shared,
            subject,
            source: source.clone(),
            jwt: Mutex::new(copy(jwt)),
            secrets: Mutex::default(),
            known: Mutex::default(),
        }
    }

    fn owns(&self, plan: &VolumePlan) -> bool {
        let same = match &plan.source {
            PlanSource::Provider(source) => *source == self.source,
            PlanSource::OpenBao(_) => false,
        };
        same && plan.store == self.shared.settings.name && plan.subject == self.subject
    }

    async fn read(&self, plan: &VolumePlan) -> Result<Vec<Object>, StoreError> {
        if !self.owns(plan) {
            let (store, subject) = (plan.store.clone(), plan.subject.clone());
            return Err(StoreError::OtherLogin { store, subject });
        }
        let credentials = Credentials {
            jwt: Arc::clone(&lock(&self.jwt)),
            secrets: Arc::clone(&lock(&self.secrets)),
        };
        let asker = self.asker(&credentials);
        let answer = self.mount(&credentials, &asker).await?;
        let answer = files::check(answer, &asker, &plan.limits)?;
        Ok(lock(&self.known).objects(answer, &self.shared.digests))
    }

    fn asker<'a>(&'a self, credentials: &'a Credentials) -> Asker<'a> {
        let settings = &self.shared.settings;
        let secrets = credentials.secrets.expose().map(|(_, value)| value);
        Asker {
            provider: &settings.name,
            directories: settings.directories_in_words(),
            subject: &self.subject,
            deadline: self.shared.fetch_deadline,
            sent: std::iter::once(credentials.jwt.expose()).chain(secrets).collect(),
        }
    }

    /// Asks once; a second time if the provider wanted to read a value that hasn't changed from the files
    /// that the reference driver would have written: then without saying what we have.
    async fn mount(
        &self,
        credentials: &Credentials,
        asker: &Asker<'_>,
    ) -> Result<MountResponse, ProviderError> {
        let until = Instant::now() + self.shared.fetch_deadline;
        let reads_files = &self.shared.reads_files;
        let current = if reads_files.load(Ordering::Relaxed) {
            Vec::new()
        } else {
            lock(&self.known).versions.clone()
        };
        let said = !current.is_empty();
        match self.call(credentials, current, until).await? {
            Err(error) if said && touches_target(&error) => {
                reads_files.store(true, Ordering::Relaxed);
                self.call(credentials, Vec::new(), until).await?
            }
            answer => answer,
        }
        .map_err(|error| asker.error(&error))
    }

    async fn call(
        &self,
        credentials: &Credentials,
        current: Vec<ObjectVersion>,
        until: Instant,
    ) -> Result<Result<MountResponse, CallError>, ProviderError> {
        let settings = &self.shared.settings;
        let Credentials { jwt, secrets } = credentials;
        let request = attributes::request(&self.source, &settings.audience, jwt, secrets, current);
        let request =
            request.ok_or_else(|| ProviderError::NoExpiry { provider: settings.name.clone() })?;
        Ok(client::mount(&*self.shared.sockets, &settings.name, request, until).await)
    }

    fn no_lease(&self) -> StoreError {
        StoreError::NoSuchLease { store: self.shared.settings.name.clone() }
    }
}

/// One result for each object that the plan names, in its order; all that came if it names none.
fn arranged(plan: &VolumePlan, objects: Vec<Object>) -> Fetch {
    let leases = Vec::new();
    if plan.objects.is_empty() {
        return Fetch { objects: objects.into_iter().map(Ok).collect(), leases };
    }
    let mut by_path: BTreeMap<_, _> =
        objects.into_iter().map(|object| (object.path.clone(), object)).collect();
    let planned = plan.objects.iter().map(|planned| {
        by_path.remove(&planned.path).ok_or_else(|| ObjectError::NoSuchSecret {
            store: plan.store.clone(),
            path: planned.path.to_string(),
        })
    });
    Fetch { objects: planned.collect(), leases }
}

fn copy(jwt: &SecretString) -> Arc<SecretString> {
    Arc::new(SecretString::new(jwt.expose().to_owned()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SecretSession for ProviderSession {
    fn renew_identity(&self, jwt: &SecretString) {
        *lock(&self.jwt) = copy(jwt);
    }

    fn take_publish_secrets(&self, secrets: PublishSecrets) {
        *lock(&self.secrets) = Arc::new(secrets);
    }

    fn fetch<'a>(&'a self, plan: &'a VolumePlan) -> BoxFuture<'a, Fetch> {
        async move {
            match self.read(plan).await {
                Ok(objects) => arranged(plan, objects),
                Err(error) => Fetch::failed(plan, error),
            }
        }
        .boxed()
    }

    fn renew_lease<'a>(
        &'a self,
        _lease: &'a LeaseId,
        _increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, StoreError>> {
        std::future::ready(Err(self.no_lease())).boxed()
    }

    fn renew_token(&self, _increment: Duration) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        std::future::ready(Ok(self.token_life())).boxed()
    }

    fn token_life(&self) -> TokenLife {
        TokenLife { ttl: None, since: Instant::now(), renewable: false }
    }

    fn revoke(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }
}
