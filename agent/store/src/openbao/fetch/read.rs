//! One round of requests with one token.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use http::Method;
use hyper::body::Bytes;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::Object;
use tokio::time::Instant;

use crate::error::{ObjectError, StoreError};
use crate::openbao::caller::{Answer, Call};
use crate::openbao::login::Token;
use crate::openbao::response::{Absence, PickError, Response};
use crate::openbao::session::OpenBaoSession;
use crate::openbao::status::Verdict;
use crate::plan::{OpenBaoPlan, Pick, ReadMethod, ReadRequest, VolumePlan};
use crate::session::{Lease, LeaseId, Renewed};

/// Requests of one volume at the same time.
const CONCURRENCY: usize = 8;
/// What a response may have beside twice the largest value: escapes, metadata, other keys.
const RESPONSE_OVERHEAD: usize = 1 << 20;

/// What became of one request.
pub(super) enum Outcome {
    /// Its objects, each with its index in the plan.
    Read { objects: Vec<(usize, Result<Object, ObjectError>)>, lease: Option<Lease> },
    /// All its objects fail alike.
    Failed(ObjectError),
    /// The store's token is no longer good.
    InvalidToken,
}

impl Outcome {
    pub(super) fn failed(error: StoreError) -> Self {
        Self::Failed(error.into())
    }

    /// How much of the volume's limit its values take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Read { objects, .. } => {
                let values = objects.iter().filter_map(|(_, object)| object.as_ref().ok());
                values.map(|object| object.value.len()).sum()
            }
            Self::Failed(_) | Self::InvalidToken => 0,
        }
    }
}

/// Requests with one token, until one deadline, within one budget of bytes.
pub(super) struct Round<'a> {
    session: &'a OpenBaoSession,
    plan: &'a VolumePlan,
    source: &'a OpenBaoPlan,
    token: Arc<Token>,
    until: Instant,
    budget: &'a AtomicUsize,
    /// The store as a whole failed: nothing more is asked.
    ended: OnceLock<StoreError>,
    token_is_bad: AtomicBool,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        session: &'a OpenBaoSession,
        plan: &'a VolumePlan,
        source: &'a OpenBaoPlan,
        token: Arc<Token>,
        until: Instant,
        budget: &'a AtomicUsize,
    ) -> Self {
        let (ended, token_is_bad) = (OnceLock::new(), AtomicBool::new(false));
        Self { session, plan, source, token, until, budget, ended, token_is_bad }
    }

    /// One outcome a request, in the order of `requests`.
    pub(super) async fn read(&self, requests: &[usize]) -> Vec<Outcome> {
        let reads: Vec<BoxFuture<'_, Outcome>> =
            requests.iter().map(|request| self.request(*request).boxed()).collect();
        stream::iter(reads).buffered(CONCURRENCY).collect().await
    }

    async fn request(&self, index: usize) -> Outcome {
        if let Some(error) = self.ended.get() {
            return Outcome::failed(error.clone());
        }
        if self.token_is_bad.load(Ordering::Relaxed) {
            return Outcome::InvalidToken;
        }
        let request = &self.source.requests[index];
        match self.call(request).await {
            Ok(answer) => self.outcome(index, request, &answer),
            Err(error) => {
                if error.ends_a_fetch() {
                    let _first_one_counts = self.ended.set(error.clone());
                }
                Outcome::failed(error)
            }
        }
    }

    async fn call(&self, request: &ReadRequest) -> Result<Answer, StoreError> {
        let (method, repeatable) = match request.method {
            ReadMethod::Get => (Method::GET, true),
            ReadMethod::Put => (Method::PUT, false),
            ReadMethod::Post => (Method::POST, false),
        };
        let body = request.args.as_ref().map(|args| serde_json::json!(args).to_string());
        let call = Call {
            method,
            target: &request.path.target(),
            namespace: self.source.login.namespace.as_ref(),
            token: Some(&self.token.header),
            index: self.token.index.as_ref(),
            body: body.map(Bytes::from).unwrap_or_default(),
            max_bytes: 2 * self.plan.limits.object_bytes + RESPONSE_OVERHEAD,
            repeatable,
        };
        self.session.shared().caller.call(&call, self.until).await
    }

    fn outcome(&self, index: usize, request: &ReadRequest, answer: &Answer) -> Outcome {
        let (store, path) = (self.plan.store.clone(), request.path.to_string());
        let sent = self.token.header.to_str().unwrap_or_default();
        match answer.verdict {
            Verdict::Success => self.objects(index, request, answer),
            Verdict::NotFound => Outcome::Failed(self.absent(request, answer)),
            Verdict::InvalidToken => {
                self.token_is_bad.store(true, Ordering::Relaxed);
                Outcome::InvalidToken
            }
            Verdict::PolicyDenied => {
                let subject = self.plan.subject.clone();
                Outcome::Failed(ObjectError::Denied { store, subject, path })
            }
            Verdict::BadRequest => {
                let reason = answer.words.reason(&[sent]);
                Outcome::Failed(ObjectError::Rejected { store, path, reason })
            }
            Verdict::Redirect | Verdict::Unexpected => Outcome::failed(StoreError::Unexpected {
                store,
                status: answer.status,
                reason: answer.words.reason(&[sent]),
            }),
        }
    }

    fn absent(&self, request: &ReadRequest, answer: &Answer) -> ObjectError {
        let (store, path) = (self.plan.store.clone(), request.path.to_string());
        let response = Response::parse(answer.body.expose());
        match response.map_or(Absence::Missing, |response| response.absence()) {
            Absence::Missing => ObjectError::NoSuchSecret { store, path },
            Absence::Deleted => ObjectError::Deleted { store, path },
            Absence::Destroyed => ObjectError::Destroyed { store, path },
            Absence::NoDataSegment => match request.path.with_data_segment() {
                Some(suggestion) => ObjectError::NoDataSegment { store, path, suggestion },
                None => ObjectError::NoSuchSecret { store, path },
            },
        }
    }

    fn objects(&self, index: usize, request: &ReadRequest, answer: &Answer) -> Outcome {
        let (store, path) = (self.plan.store.clone(), request.path.to_string());
        if answer.body.is_empty() {
            return Outcome::Failed(ObjectError::NoData { store, path });
        }
        let Some(response) = Response::parse(answer.body.expose()) else {
            return Outcome::failed(StoreError::Malformed { store });
        };
        if response.is_absent() {
            return Outcome::Failed(self.absent(request, answer));
        }
        let mut objects = Vec::new();
        for (object, pick) in self.source.picks_of(index) {
            objects.push((object, self.object(object, pick, request, &response)));
        }
        let under = objects.iter().map(|(object, _)| *object).collect();
        let lease = lease(request, &response, under);
        Outcome::Read { objects, lease }
    }

    fn object(
        &self,
        index: usize,
        pick: &Pick,
        request: &ReadRequest,
        response: &Response<'_>,
    ) -> Result<Object, ObjectError> {
        let value = response.pick(pick).map_err(|error| self.unpicked(error, pick, request))?;
        self.check_size(&value)?;
        let plan = &self.plan.objects[index];
        let version = response.version().unwrap_or_else(|| self.version(request, pick, &value));
        Ok(Object { path: plan.path.clone(), mode: plan.mode, version, value })
    }

    fn unpicked(&self, error: PickError, pick: &Pick, request: &ReadRequest) -> ObjectError {
        let (store, path) = (self.plan.store.clone(), request.path.to_string());
        let key = pick.key.clone().unwrap_or_default();
        match error {
            PickError::NoData => ObjectError::NoData { store, path },
            PickError::NoSuchKey => ObjectError::NoSuchKey { store, path, key },
            PickError::BadEncoding => {
                ObjectError::BadEncoding { store, path, key, encoding: pick.encoding }
            }
        }
    }

    fn check_size(&self, value: &SecretBytes) -> Result<(), ObjectError> {
        let (bytes, limits) = (value.len(), &self.plan.limits);
        if bytes > limits.object_bytes {
            return Err(ObjectError::TooLarge { bytes, limit: limits.object_bytes });
        }
        let take = |left: usize| left.checked_sub(bytes);
        let taken = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let limit = limits.volume_bytes;
        taken.map(drop).map_err(|_| ObjectError::VolumeTooLarge { limit })
    }

    fn version(&self, request: &ReadRequest, pick: &Pick, value: &SecretBytes) -> String {
        let mut context = hmac::Context::with_key(&self.session.shared().versions);
        for part in [request.path.target().as_bytes(), pick.key.as_deref().unwrap_or("").as_bytes()]
        {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(value.expose());
        let tag = context.sign();
        tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What the objects of a response die with. What was made for us without a lease, as a certificate, says
/// itself when it ends; what is only read may hold a number of that name that means something else.
fn lease(request: &ReadRequest, response: &Response<'_>, objects: Vec<usize>) -> Option<Lease> {
    let since = Instant::now();
    if let Some((id, duration, renewable)) = response.lease() {
        let life = Renewed { duration, since, renewable };
        return Some(Lease { id: Some(LeaseId::new(id)), life, objects });
    }
    if request.method == ReadMethod::Get {
        return None;
    }
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(response.expiration()?))?;
    let duration = end.duration_since(SystemTime::now()).unwrap_or_default();
    Some(Lease { id: None, life: Renewed { duration, since, renewable: false }, objects })
}
