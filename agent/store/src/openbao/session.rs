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
use zeroize::Zeroizing;

use super::Shared;
use super::caller::{Answer, Call, SMALL_ANSWER};
use super::carried;
use super::fetch;
use super::login::{self, Token};
use super::status::Verdict;
use crate::error::StoreError;
use crate::plan::{LoginPlan, Subject, VolumePlan};
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
    /// Tokens that were good when another took their place: leases may still hang on them.
    former: Mutex<Vec<Arc<Token>>>,
}

#[derive(Deserialize)]
struct LeaseAnswer {
    lease_duration: u64,
    renewable: bool,
}

impl OpenBaoSession {
    pub(super) fn new(shared: Arc<Shared>, owner: Owner, jwt: &SecretString, token: Token) -> Self {
        let jwt = Mutex::new(Arc::new(copy(jwt)));
        let (token, former) = (Mutex::new(Arc::new(token)), Mutex::default());
        Self { shared, owner, jwt, token, former }
    }

    /// One that was carried over: the current token is the last.
    pub(super) fn resumed(
        shared: Arc<Shared>,
        owner: Owner,
        jwt: &SecretString,
        mut tokens: Vec<Token>,
    ) -> Option<Self> {
        let session = Self::new(shared, owner, jwt, tokens.pop()?);
        let former = tokens.into_iter().map(Arc::new).collect();
        Some(Self { former: Mutex::new(former), ..session })
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

    async fn replace_token(&self) -> Result<TokenLife, StoreError> {
        let former = self.token();
        let token = self.log_in(Instant::now() + self.shared.timing.call).await?;
        let mut kept = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|token| !token.life.is_over());
        kept.push(former);
        Ok(token.life)
    }

    /// Whether a plan is of the pod and the login that this session is of.
    pub(super) fn owns(&self, plan: &VolumePlan) -> bool {
        plan.store == self.shared.name
            && plan.subject == self.owner.subject
            && plan.source.openbao().is_some_and(|source| source.login == self.owner.login)
    }

    async fn post(&self, target: &str, body: Bytes) -> Result<(Answer, Arc<Token>), StoreError> {
        let token = self.token();
        Ok((self.post_with(&token, target, body).await?, token))
    }

    async fn post_with(
        &self,
        token: &Token,
        target: &str,
        body: Bytes,
    ) -> Result<Answer, StoreError> {
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
        self.shared.caller.call(&call, until).await
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
        let former: Vec<_> =
            std::mem::take(&mut *self.former.lock().unwrap_or_else(PoisonError::into_inner));
        let tokens = former.into_iter().chain([self.token()]);
        let ended = futures::future::join_all(tokens.map(|token| self.end_token(token))).await;
        ended.into_iter().collect()
    }

    async fn end_token(&self, token: Arc<Token>) -> Result<(), StoreError> {
        if token.is_batch {
            return Ok(());
        }
        let answer = self.post_with(&token, "/v1/auth/token/revoke-self", Bytes::new()).await?;
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

    fn carry(&self) -> Zeroizing<Vec<u8>> {
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tokens: Vec<_> = former.into_iter().chain([self.token()]).collect();
        let good_for = self.shared.good_for(&self.owner.login);
        carried::write(&good_for, tokens.iter().map(|token| &**token))
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

    fn log_in_anew(&self) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        self.replace_token().boxed()
    }

    fn revoke(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.end().boxed()
    }
}
