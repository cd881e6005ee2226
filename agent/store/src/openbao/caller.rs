//! One request to a store: which host, which headers, what is tried again, and until when.
//!
//! Invariant: a request goes only to the configured hosts, and a 307 is followed only to one of them with
//! the very same path, at most [`MAX_HOPS`] times. What may have been carried out is not repeated unless
//! repeating it is harmless. Every call ends at its deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use hyper::body::Bytes;
use sotto_core::identity::StoreName;
use sotto_core::secret::SecretBytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Timing;
use super::status::{Trouble, Verdict, Words, judge};
use crate::config::{Origin, StoreSettings};
use crate::error::StoreError;
use crate::http::{HttpError, HttpsClient, MAX_IDLE, Outgoing};
use crate::plan::StoreNamespace;
use crate::text;

/// Most redirects in a row that are followed.
const MAX_HOPS: usize = 2;
/// How often all hosts are tried.
const PASSES: usize = 2;
/// Most requests to one store at the same time, over all volumes.
const MAX_IN_FLIGHT: usize = MAX_IDLE;
/// Largest answer to anything but a read.
pub(super) const SMALL_ANSWER: usize = 256 << 10;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
/// The state that a login created; a standby that hasn't seen it forwards the request.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-vault-index");

/// What is asked.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// `/v1/...`, encoded.
    pub(super) target: &'a str,
    pub(super) namespace: Option<&'a StoreNamespace>,
    pub(super) token: Option<&'a HeaderValue>,
    pub(super) index: Option<&'a HeaderValue>,
    pub(super) body: Bytes,
    pub(super) max_bytes: usize,
    /// Whether carrying it out twice is harmless.
    pub(super) repeatable: bool,
}

/// What came back, whatever it means.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: SecretBytes,
    pub(super) words: Words,
    pub(super) verdict: Verdict,
}

/// A host didn't answer as a store should.
struct Failure {
    error: StoreError,
    another_host: bool,
    soon: bool,
}

pub(super) struct Caller {
    store: StoreName,
    https: HttpsClient,
    hosts: Vec<Origin>,
    /// The host that answered last, tried first.
    preferred: AtomicUsize,
    slots: Semaphore,
    timing: Timing,
}

impl Caller {
    pub(super) fn new(settings: &StoreSettings, https: HttpsClient, timing: Timing) -> Self {
        let mut hosts = vec![settings.address.clone()];
        for standby in &settings.standbys {
            if !hosts.contains(standby) {
                hosts.push(standby.clone());
            }
        }
        Self {
            store: settings.name.clone(),
            https,
            hosts,
            preferred: AtomicUsize::new(0),
            slots: Semaphore::new(MAX_IN_FLIGHT),
            timing,
        }
    }

    /// Asks until there is an answer, a certain failure, or it is `until`.
    pub(super) async fn call(&self, call: &Call<'_>, until: Instant) -> Result<Answer, StoreError> {
        let started = Instant::now();
        let work = async {
            let _slot = self.slots.acquire().await;
            self.passes(call, until).await
        };
        let late = || StoreError::Deadline {
            store: self.store.clone(),
            deadline: until.saturating_duration_since(started),
        };
        tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn passes(&self, call: &Call<'_>, until: Instant) -> Result<Answer, StoreError> {
        let mut pass = 1;
        loop {
            match self.every_host(call, until).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.soon && pass < PASSES => {
                    pass += 1;
                    tokio::time::sleep(self.timing.pause).await;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    async fn every_host(&self, call: &Call<'_>, until: Instant) -> Result<Answer, Failure> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut step = 0;
        loop {
            let host = (first + step) % self.hosts.len();
            step += 1;
            match self.one_host(host, call, until).await {
                Ok((answer, answered_by)) => {
                    self.preferred.store(answered_by, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) if failure.another_host && step < self.hosts.len() => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// One host, and those that it redirects to.
    async fn one_host(
        &self,
        mut host: usize,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<(Answer, usize), Failure> {
        for _hop in 0..=MAX_HOPS {
            let answer = self.exchange(host, call, until).await?;
            if answer.verdict != Verdict::Redirect {
                return Ok((answer, host));
            }
            host = self.redirect(&answer.headers, call.target).map_err(Failure::final_one)?;
        }
        Err(Failure::final_one(self.redirect_refused("more hosts, one after the other")))
    }

    async fn exchange(
        &self,
        host: usize,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let left = until.saturating_duration_since(Instant::now());
        let request = self.request(&self.hosts[host], call, left.min(self.timing.exchange));
        let request = request.map_err(Failure::final_one)?;
        let incoming = self.https.send(request).await;
        let incoming = incoming.map_err(|error| self.of_http(error, call.repeatable))?;
        let words = Words::of(incoming.body.expose());
        match judge(incoming.status, &incoming.headers, &words) {
            Ok(verdict) => Ok(Answer {
                status: incoming.status,
                headers: incoming.headers,
                body: incoming.body,
                words,
                verdict,
            }),
            Err(trouble) => Err(self.of_trouble(trouble, call.repeatable)),
        }
    }

    fn request(
        &self,
        host: &Origin,
        call: &Call<'_>,
        deadline: Duration,
    ) -> Result<Outgoing, StoreError> {
        let malformed = || StoreError::Malformed { store: self.store.clone() };
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = call.namespace {
            let value = HeaderValue::from_str(namespace.as_str()).map_err(|_| malformed())?;
            headers.insert(NAMESPACE, value);
        }
        if let Some(token) = call.token {
            headers.insert(TOKEN, token.clone());
        }
        if let Some(index) = call.index {
            headers.insert(INDEX, index.clone());
            headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        }
        if !call.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Outgoing {
            method: call.method.clone(),
            uri: host.url(call.target).ok_or_else(malformed)?,
            headers,
            body: call.body.clone(),
            deadline,
            max_bytes: call.max_bytes,
        })
    }

    /// The host of a redirect, if it is one of ours and the path is the same.
    fn redirect(&self, headers: &HeaderMap, target: &str) -> Result<usize, StoreError> {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let uri = location.and_then(|text| text.parse::<Uri>().ok());
        let Some(uri) = uri else { return Err(self.redirect_refused("an unreadable location")) };
        if uri.path_and_query().is_none_or(|path| path.as_str() != target) {
            return Err(self.redirect_refused("another path"));
        }
        let Ok(origin) = Origin::of(&uri) else {
            return Err(self.redirect_refused("an address that is not https"));
        };
        let known = self.hosts.iter().position(|host| *host == origin);
        known.ok_or_else(|| self.redirect_refused(&text::excerpt(&origin.to_string())))
    }

    fn redirect_refused(&self, target: &str) -> StoreError {
        StoreError::RedirectRefused { store: self.store.clone(), target: target.to_owned() }
    }

    fn of_trouble(&self, trouble: Trouble, repeatable: bool) -> Failure {
        let harmless = repeatable || trouble.did_nothing();
        Failure {
            another_host: harmless && trouble.is_of_one_node(),
            soon: harmless && trouble.passes_soon(),
            error: trouble.into_error(self.store.clone()),
        }
    }

    fn of_http(&self, error: HttpError, repeatable: bool) -> Failure {
        let harmless = repeatable || error.was_never_sent();
        let store = self.store.clone();
        let (soon, error) = match error {
            HttpError::Connect(_) | HttpError::Broken(_) | HttpError::Tls(_) => {
                (true, StoreError::Unreachable { store, reason: error.to_string() })
            }
            HttpError::Untrusted(_) | HttpError::NoTls13 => {
                (false, StoreError::Untrusted { store, reason: error.to_string() })
            }
            HttpError::ClientCertificateRefused => {
                (false, StoreError::ClientCertificateRefused { store })
            }
            HttpError::Deadline(deadline) => (false, StoreError::Deadline { store, deadline }),
            HttpError::TooLarge { limit } => {
                return Failure::final_one(StoreError::TooLarge { store, limit });
            }
        };
        Failure { error, another_host: harmless, soon: harmless && soon }
    }
}

impl Failure {
    fn final_one(error: StoreError) -> Self {
        Self { error, another_host: false, soon: false }
    }
}
