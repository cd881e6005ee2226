//! Logging in: jwt, kubernetes and cert, which differ in their bodies only.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::json;
use sotto_core::secret::{SecretBytes, SecretString};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Shared;
use super::caller::{Answer, Call, INDEX, SMALL_ANSWER};
use super::session::Owner;
use super::status::Verdict;
use crate::config::AuthMethod;
use crate::error::StoreError;
use crate::http::wiped;
use crate::session::TokenLife;

/// A store token, kept as the header that it is sent in: marked sensitive, wiped when dropped.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    /// The store's state right after the login.
    pub(super) index: Option<HeaderValue>,
    pub(super) life: TokenLife,
    /// Batch tokens can't be revoked; they end by themselves.
    pub(super) is_batch: bool,
}

/// `auth` in an answer.
#[derive(Deserialize)]
pub(super) struct Auth<'a> {
    #[serde(borrow)]
    client_token: Cow<'a, str>,
    lease_duration: u64,
    renewable: bool,
    #[serde(default)]
    token_type: Option<String>,
}

#[derive(Deserialize)]
struct LoginAnswer<'a> {
    #[serde(borrow)]
    auth: Auth<'a>,
}

impl Auth<'_> {
    pub(super) fn life(&self) -> TokenLife {
        let ttl = Some(self.lease_duration).filter(|seconds| *seconds > 0);
        TokenLife {
            ttl: ttl.map(Duration::from_secs),
            since: Instant::now(),
            renewable: self.renewable,
        }
    }
}

/// The life of the token that an answer's `auth` is about.
pub(super) fn life(body: &[u8]) -> Option<TokenLife> {
    serde_json::from_slice::<LoginAnswer<'_>>(body).ok().map(|answer| answer.auth.life())
}

impl Shared {
    /// Logs in as `owner`.
    pub(super) async fn log_in(
        &self,
        owner: &Owner,
        jwt: &SecretString,
        until: Instant,
    ) -> Result<Token, StoreError> {
        let body = body(self.method, owner.login.role.as_deref(), jwt);
        let call = Call {
            method: Method::POST,
            target: &format!("/v1/auth/{}/login", owner.login.mount),
            namespace: owner.login.namespace.as_ref(),
            token: None,
            index: None,
            body: wiped(body),
            max_bytes: SMALL_ANSWER,
            repeatable: true,
        };
        let answer = self.caller.call(&call, until).await?;
        match answer.verdict {
            Verdict::Success => {
                token(&answer).ok_or_else(|| StoreError::Malformed { store: self.name.clone() })
            }
            Verdict::BadRequest
            | Verdict::InvalidToken
            | Verdict::PolicyDenied
            | Verdict::NotFound => Err(self.login_refused(owner, &answer, jwt)),
            Verdict::Redirect | Verdict::Unexpected => Err(StoreError::Unexpected {
                store: self.name.clone(),
                status: answer.status,
                reason: answer.words.reason(&[jwt.expose()]),
            }),
        }
    }

    fn login_refused(&self, owner: &Owner, answer: &Answer, jwt: &SecretString) -> StoreError {
        let (store, mount) = (self.name.clone(), owner.login.mount.clone());
        match &owner.login.role {
            Some(role) if says_no_such_role(answer, role) => {
                StoreError::NoSuchRole { store, role: role.clone(), mount }
            }
            _other => StoreError::LoginRefused {
                store,
                subject: owner.subject.clone(),
                mount,
                reason: answer.words.reason(&[jwt.expose()]),
            },
        }
    }
}

/// `role "x" could not be found` of the jwt method, `invalid role name "x"` of the kubernetes method.
fn says_no_such_role(answer: &Answer, role: &str) -> bool {
    answer.verdict == Verdict::BadRequest
        && (answer.words.mention(&format!("role {role:?} could not be found"))
            || answer.words.mention(&format!("invalid role name {role:?}")))
}

fn body(method: AuthMethod, role: Option<&str>, jwt: &SecretString) -> SecretBytes {
    match method {
        AuthMethod::Cert => {
            let name = role.map_or_else(|| json!({}), |role| json!({ "name": role }));
            SecretBytes::new(name.to_string().into_bytes())
        }
        AuthMethod::Jwt | AuthMethod::Kubernetes => {
            #[derive(serde::Serialize)]
            struct Login<'a> {
                role: &'a str,
                jwt: &'a str,
            }
            let login = Login { role: role.unwrap_or_default(), jwt: jwt.expose() };
            // Room for every byte escaped: growing would leave a copy of the token behind.
            let room = 6 * (login.role.len() + login.jwt.len()) + 32;
            let mut body = Zeroizing::new(Vec::with_capacity(room));
            serde_json::to_writer(&mut *body, &login).expect("two strings are always JSON");
            SecretBytes::new(std::mem::take(&mut *body))
        }
    }
}

fn token(answer: &Answer) -> Option<Token> {
    let auth = serde_json::from_slice::<LoginAnswer<'_>>(answer.body.expose()).ok()?.auth;
    let life = auth.life();
    let is_batch = auth.token_type.as_deref() == Some("batch");
    let text = SecretBytes::from(SecretString::new(auth.client_token.into_owned()));
    if text.is_empty() {
        return None;
    }
    let mut header = HeaderValue::from_maybe_shared(wiped(text)).ok()?;
    header.set_sensitive(true);
    Some(Token { header, index: answer.headers.get(INDEX).cloned(), life, is_batch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_each_method_is_as_documented() {
        let jwt = SecretString::new("a.b.c".to_owned());
        let text =
            |method, role| String::from_utf8(body(method, role, &jwt).expose().to_vec()).unwrap();
        assert_eq!(text(AuthMethod::Jwt, Some("r")), r#"{"role":"r","jwt":"a.b.c"}"#);
        assert_eq!(text(AuthMethod::Kubernetes, Some("r")), r#"{"role":"r","jwt":"a.b.c"}"#);
        assert_eq!(text(AuthMethod::Cert, Some("r")), r#"{"name":"r"}"#);
        assert_eq!(text(AuthMethod::Cert, None), "{}");
    }

    #[test]
    fn a_body_never_grows_while_it_is_written() {
        let jwt = SecretString::new("\"\u{1}".repeat(500));
        let body = body(AuthMethod::Jwt, Some("r"), &jwt);
        assert!(body.len() <= 6 * (1 + jwt.expose().len()) + 32);
    }
}
