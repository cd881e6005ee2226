//! A store that does what it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use sotto_core::identity::{Audience, StoreName};
use sotto_core::secret::{SecretBytes, SecretString};
use sotto_core::snapshot::Object;
use sotto_store::session::{LeaseId, Renewed, SecretSession, SecretStore, TokenLife};
use sotto_store::{Fetch, Lease, ObjectError, StoreError, StoreSession, VolumePlan};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// A store that does what it is told to, and counts what it was asked.
pub(super) struct FakeStore {
    name: StoreName,
    audience: Audience,
    shared: Arc<Told>,
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) logins: AtomicUsize,
    pub(super) fetches: AtomicUsize,
    pub(super) revoked: AtomicUsize,
    pub(super) identities: Mutex<Vec<String>>,
    pub(super) refuse_login: Mutex<Option<StoreError>>,
    /// Errors by the object's name.
    pub(super) refuse: Mutex<BTreeMap<String, ObjectError>>,
    /// `Some`: a fetch waits for a permit.
    pub(super) hold_fetch: Mutex<Option<Arc<Semaphore>>>,
    pub(super) hold_login: Mutex<Option<Arc<Semaphore>>>,
    pub(super) hold_revoke: Mutex<Option<Arc<Semaphore>>>,
    /// What is read is read under a lease, if this is set.
    pub(super) lease: Mutex<Option<Term>>,
    /// The token's life; without it it has no end.
    pub(super) token: Mutex<Option<Term>>,
    pub(super) renewals: AtomicUsize,
    pub(super) token_renewals: AtomicUsize,
    pub(super) new_logins: AtomicUsize,
    /// What a renewal of a lease is refused with.
    pub(super) refuse_renewal: Mutex<Option<StoreError>>,
    /// Nobody is answered, but with this.
    pub(super) down: Mutex<Option<StoreError>>,
    /// Versions that were written, where there is no lease. Earlier ones can be asked for.
    pub(super) version: AtomicUsize,
    /// When each login and fetch came.
    pub(super) requests: Mutex<Vec<Instant>>,
    pub(super) asked: Notify,
    pub(super) asked_to_revoke: Notify,
}

impl Default for FakeStore {
    fn default() -> Self {
        let name = StoreName::parse("main").unwrap();
        Self { name, audience: Audience::parse("bao").unwrap(), shared: Arc::default() }
    }
}

impl std::ops::Deref for FakeStore {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.shared
    }
}

impl Told {
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.logins), count(&self.fetches), count(&self.revoked))
    }

    /// Leases renewed, tokens renewed, logins beside an old token.
    pub(super) fn prolonged(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.renewals), count(&self.token_renewals), count(&self.new_logins))
    }

    pub(super) fn refuse_object(&self, name: &str, error: ObjectError) {
        self.refuse.lock().unwrap().insert(name.to_owned(), error);
    }

    /// Logins and fetches between two times.
    pub(super) fn requests_within(&self, from: Instant, to: Instant) -> usize {
        self.requests.lock().unwrap().iter().filter(|at| **at >= from && **at < to).count()
    }

    /// When logins and fetches came.
    pub(super) fn times_of_requests(&self) -> Vec<Instant> {
        self.requests.lock().unwrap().clone()
    }

    fn newest(&self) -> usize {
        7 + self.version.load(Ordering::SeqCst)
    }

    fn came(&self, counter: &AtomicUsize) -> Option<StoreError> {
        counter.fetch_add(1, Ordering::SeqCst);
        self.requests.lock().unwrap().push(Instant::now());
        self.down.lock().unwrap().clone()
    }

    async fn turn(&self, hold: &Mutex<Option<Arc<Semaphore>>>) {
        self.asked.notify_one();
        let hold = hold.lock().unwrap().clone();
        if let Some(hold) = hold {
            hold.acquire().await.unwrap().forget();
        }
    }
}

impl SecretStore for FakeStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn audience(&self) -> &Audience {
        &self.audience
    }

    fn resume(&self, _: &VolumePlan, _: &SecretString, _: &[u8]) -> Option<StoreSession> {
        Some(Box::new(FakeSession::new(Arc::clone(&self.shared))))
    }

    fn login<'a>(
        &'a self,
        _: &'a VolumePlan,
        _: &'a SecretString,
    ) -> BoxFuture<'a, Result<StoreSession, StoreError>> {
        Box::pin(async {
            if let Some(error) = self.came(&self.logins) {
                return Err(error);
            }
            self.turn(&self.hold_login).await;
            match self.refuse_login.lock().unwrap().clone() {
                Some(error) => Err(error),
                None => {
                    let session = FakeSession::new(Arc::clone(&self.shared));
                    Ok(Box::new(session) as StoreSession)
                }
            }
        })
    }
}

/// Of the versions after the first the value tells which it is.
fn value(name: &str, version: &str) -> Vec<u8> {
    let version = version.strip_suffix("@t").filter(|number| *number != "7");
    format!("canary-{name}{}", version.unwrap_or_default()).into_bytes()
}

/// The version that the first request names.
fn asked_for(plan: &VolumePlan) -> Option<usize> {
    let target = plan.source.openbao()?.requests.first()?.path.target();
    target.split_once("?version=")?.1.parse().ok()
}

/// How long something lives at first, and by renewals at most.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) life: Duration,
    pub(super) most: Duration,
}

impl Term {
    /// What a renewal by `increment` gives to what began at `since`.
    fn renewed(self, since: Instant, increment: Duration) -> Renewed {
        let left = self.most.saturating_sub(since.elapsed());
        Renewed { duration: increment.min(left), since: Instant::now(), renewable: true }
    }
}

struct FakeSession {
    told: Arc<Told>,
    /// When the token was logged in for, and its life.
    token: Mutex<(Instant, TokenLife)>,
    /// When each lease began.
    leases: Mutex<Vec<Instant>>,
}

impl FakeSession {
    fn new(told: Arc<Told>) -> Self {
        let token = Mutex::new((Instant::now(), Self::fresh(&told)));
        Self { told, token, leases: Mutex::default() }
    }

    fn fresh(told: &Told) -> TokenLife {
        let ttl = told.token.lock().unwrap().map(|term| term.life);
        TokenLife { ttl, since: Instant::now(), renewable: true }
    }

    /// As a real session does when its token is over; what it is refused with.
    fn log_in(&self) -> Option<StoreError> {
        let refused = self.told.came(&self.told.logins);
        if refused.is_none() {
            *self.token.lock().unwrap() = (Instant::now(), Self::fresh(&self.told));
        }
        refused
    }

    /// One lease over everything that was read.
    fn lease(&self, plan: &VolumePlan) -> Option<Lease> {
        let term = (*self.told.lease.lock().unwrap())?;
        let mut leases = self.leases.lock().unwrap();
        let (id, since) = (LeaseId::new(&leases.len().to_string()), Instant::now());
        leases.push(since);
        let life = Renewed { duration: term.life, since, renewable: true };
        Some(Lease { id: Some(id), life, objects: (0..plan.objects.len()).collect() })
    }
}

impl SecretSession for FakeSession {
    fn renew_identity(&self, jwt: &SecretString) {
        self.told.identities.lock().unwrap().push(jwt.expose().to_owned());
    }

    fn fetch<'a>(&'a self, plan: &'a VolumePlan) -> BoxFuture<'a, Fetch> {
        Box::pin(async move {
            let is_over = self.token.lock().unwrap().1.is_over();
            let refused = is_over.then(|| self.log_in()).flatten();
            if let Some(error) = refused.or_else(|| self.told.came(&self.told.fetches)) {
                let failed = |_| Err(error.clone().into());
                return Fetch {
                    objects: plan.objects.iter().map(failed).collect(),
                    leases: vec![],
                };
            }
            self.told.turn(&self.told.hold_fetch).await;
            // Under a lease each one is new.
            let version = match *self.told.lease.lock().unwrap() {
                Some(_) => format!("{}th", self.told.fetches.load(Ordering::SeqCst)),
                None => format!("{}@t", asked_for(plan).unwrap_or_else(|| self.told.newest())),
            };
            let refused = self.told.refuse.lock().unwrap();
            let read = |planned: &sotto_store::plan::ObjectPlan| {
                let name = planned.path.to_string();
                match refused.get(&name) {
                    Some(error) => Err(error.clone()),
                    None => Ok(Object {
                        path: planned.path.clone(),
                        mode: planned.mode,
                        version: version.clone(),
                        value: SecretBytes::new(value(&name, &version)),
                    }),
                }
            };
            let leases = self.lease(plan).into_iter().collect();
            Fetch { objects: plan.objects.iter().map(read).collect(), leases }
        })
    }

    fn renew_lease<'a>(
        &'a self,
        lease: &'a LeaseId,
        increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, StoreError>> {
        Box::pin(async move {
            self.told.renewals.fetch_add(1, Ordering::SeqCst);
            if let Some(error) = self.told.refuse_renewal.lock().unwrap().clone() {
                return Err(error);
            }
            let term = self.told.lease.lock().unwrap().expect("no lease was given");
            let number: usize = lease.expose().parse().unwrap();
            Ok(term.renewed(self.leases.lock().unwrap()[number], increment))
        })
    }

    fn renew_token(&self, increment: Duration) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        Box::pin(async move {
            self.told.token_renewals.fetch_add(1, Ordering::SeqCst);
            let term = self.told.token.lock().unwrap().expect("a token without end");
            let mut token = self.token.lock().unwrap();
            let Renewed { duration, since, renewable } = term.renewed(token.0, increment);
            token.1 = TokenLife { ttl: Some(duration), since, renewable };
            Ok(token.1)
        })
    }

    fn log_in_anew(&self) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        Box::pin(async move {
            self.told.new_logins.fetch_add(1, Ordering::SeqCst);
            let life = Self::fresh(&self.told);
            *self.token.lock().unwrap() = (Instant::now(), life);
            Ok(life)
        })
    }

    fn token_life(&self) -> TokenLife {
        self.token.lock().unwrap().1
    }

    fn revoke(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.told.asked_to_revoke.notify_one();
            self.told.turn(&self.told.hold_revoke).await;
            self.told.revoked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }
}
