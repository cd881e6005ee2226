//! One pod's login over time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use sotto_core::secret::SecretString;
use tokio::time::Instant;

use super::Shared;
use super::caller::{Answer, Call, SMALL_ANSWER};
use super::fetch;
use super::login::{self, Token};
use super::status::Verdict;
use crate::error::StoreError;
use crate::plan::{LoginPlan, PlanSource, Subject, VolumePlan};
use crate::session::{Fetch, LeaseId, Renewed, SecretSession, TokenLife};

/// Whom a session belongs to; plans of others are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) subject: Subject,
    pub(super) login: LoginPlan,
}

/// One login.
pub(super) struct OpenBaoSession {
    shared: Arc<Shared>,
    owner: Owner,
    /// The pod's freshest token, for a new login.
    jwt: Mutex<Arc<SecretString>>,
    token: Mutex<Arc<Token>>,
}

#[derive(Deserialize)]
struct LeaseAnswer {
    lease_duration: u64,
    renewable: bool,
}

impl OpenBaoSession {
    pub(super) fn new(shared: Arc<Shared>, owner: Owner, jwt: &SecretString, token: Token) -> Self {
        let jwt = Mutex::new(Arc::new(copy(jwt)));
        Self { shared, owner, jwt, token: Mutex::new(Arc::new(token)) }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn token(&self) -> Arc<Token> {
        Arc::clone(&self.token.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Logs in anew and keeps the token.
    pub(super) async fn log_in(&self, until: Instant) -> Result<Arc<Token>, StoreError> {
        let jwt = Arc::clone(&self.jwt.lock().unwrap_or_else(PoisonError::into_inner));
        let token = Arc::new(self.shared.log_in(&self.owner, &jwt, until).await?);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&token);
        Ok(token)
    }

    /// Whether a plan is of the pod and the login that this session is of.
    pub(super) fn owns(&self, plan: &VolumePlan) -> bool {
        let PlanSource::OpenBao(source) = &plan.source;
        plan.store == self.shared.name
            && plan.subject == self.owner.subject
            && source.login == self.owner.login
    }

    async fn post(&self, target: &str, body: Bytes) -> Result<(Answer, Arc<Token>), StoreError> {
        let token = self.token();
        let call = Call {
            method: Method::POST,
            target,
            namespace: self.owner.login.namespace.as_ref(),
            token: Some(&token.header),
            index: token.index.as_ref(),
            body,
            max_bytes: SMALL_ANSWER,
            repeatable: true,
        };
        let until = Instant::now() + self.shared.timing.call;
        let answer = self.shared.caller.call(&call, until).await?;
        Ok((answer, token))
    }

    async fn prolong(&self, lease: &LeaseId, increment: Duration) -> Result<Renewed, StoreError> {
        let body = json!({ "lease_id": lease.expose(), "increment": increment.as_secs() });
        let body = Bytes::from(body.to_string());
        let (answer, token) = self.post("/v1/sys/leases/renew", body).await?;
        let store = self.shared.name.clone();
        match answer.verdict {
            Verdict::Success => {
                let read = serde_json::from_slice::<LeaseAnswer>(answer.body.expose());
                let life = read.map_err(|_| StoreError::Malformed { store })?;
                let duration = Duration::from_secs(life.lease_duration);
                Ok(Renewed { duration, since: Instant::now(), renewable: life.renewable })
            }
            Verdict::BadRequest if answer.words.mention("lease not found") => {
                Err(StoreError::NoSuchLease { store })
            }
            Verdict::InvalidToken
            | Verdict::BadRequest
            | Verdict::PolicyDenied
            | Verdict::NotFound
            | Verdict::Redirect
            | Verdict::Unexpected => Err(self.refused(&answer, &token)),
        }
    }

    async fn prolong_token(&self, increment: Duration) -> Result<TokenLife, StoreError> {
        let body = Bytes::from(json!({ "increment": increment.as_secs() }).to_string());
        let (answer, token) = self.post("/v1/auth/token/renew-self", body).await?;
        if answer.verdict != Verdict::Success {
            return Err(self.refused(&answer, &token));
        }
        let malformed = || StoreError::Malformed { store: self.shared.name.clone() };
        let life = login::life(answer.body.expose()).ok_or_else(malformed)?;
        let renewed = Token {
            header: token.header.clone(),
            index: token.index.clone(),
            life,
            is_batch: token.is_batch,
        };
        let mut current = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        // A login in the meantime has brought a token that this answer isn't about.
        if Arc::ptr_eq(&current, &token) {
            *current = Arc::new(renewed);
        }
        Ok(life)
    }

    async fn end(&self) -> Result<(), StoreError> {
        if self.token().is_batch {
            return Ok(());
        }
        let (answer, token) = self.post("/v1/auth/token/revoke-self", Bytes::new()).await?;
        match answer.verdict {
            Verdict::Success | Verdict::InvalidToken => Ok(()),
            Verdict::BadRequest
            | Verdict::PolicyDenied
            | Verdict::NotFound
            | Verdict::Redirect
            | Verdict::Unexpected => Err(self.refused(&answer, &token)),
        }
    }

    fn refused(&self, answer: &Answer, token: &Token) -> StoreError {
        let store = self.shared.name.clone();
        if answer.verdict == Verdict::InvalidToken {
            return StoreError::TokenRefused { store, subject: self.owner.subject.clone() };
        }
        let sent = token.header.to_str().unwrap_or_default();
        let reason = answer.words.reason(&[sent]);
        StoreError::Unexpected { store, status: answer.status, reason }
    }
}

fn copy(jwt: &SecretString) -> SecretString {
    SecretString::new(jwt.expose().to_owned())
}

impl SecretSession for OpenBaoSession {
    fn renew_identity(&self, jwt: &SecretString) {
        let fresh = Arc::new(copy(jwt));
        *self.jwt.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn fetch<'a>(&'a self, plan: &'a VolumePlan) -> BoxFuture<'a, Fetch> {
        fetch::fetch(self, plan).boxed()
    }

    fn renew_lease<'a>(
        &'a self,
        lease: &'a LeaseId,
        increment: Duration,
    ) -> BoxFuture<'a, Result<Renewed, StoreError>> {
        self.prolong(lease, increment).boxed()
    }

    fn renew_token(&self, increment: Duration) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        self.prolong_token(increment).boxed()
    }

    fn token_life(&self) -> TokenLife {
        self.token().life
    }

    fn revoke(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.end().boxed()
    }
}
