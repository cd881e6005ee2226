//! Logins with a pod's token, and the life of the store token that they give.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::reply;
use super::state::{Asker, Auth, AuthMethod, Inner, Role, Token};
use crate::https::Answer;
use crate::issuer::{STORE_LEEWAY, VerifyError, audiences};
use crate::random;

const WRONG_AUDIENCE: &str =
    "invalid audience (aud) claim: audience claim does not match any expected audience";

/// A refusal: status and message.
type Refused = (u16, String);

/// Logs in at `auth/<mount>/login`.
pub(super) fn login(inner: &mut Inner, mount: &str, body: &Value) -> Answer {
    let Some(auth) = inner.auth.get(mount) else {
        return reply::error(403, reply::INVALID_TOKEN);
    };
    let granted = match auth.method {
        AuthMethod::Jwt => jwt(auth, body),
        AuthMethod::Kubernetes => kubernetes(auth, body),
    };
    match granted {
        Ok((role, claims, name)) => grant(inner, mount, &name, &role, &claims),
        Err((status, message)) => reply::error(status, &message),
    }
}

fn jwt(auth: &Auth, body: &Value) -> Result<(Role, Value, String), Refused> {
    let refused = |message: String| (400, message);
    let name = text(body, "role").ok_or_else(|| refused("missing role".to_owned()))?;
    let role = auth.roles.get(name);
    let role = role.ok_or_else(|| refused(format!("role {name:?} could not be found")))?;
    let token = text(body, "jwt").ok_or_else(|| refused("missing token".to_owned()))?;
    let claims = auth
        .issuer
        .verify(token, STORE_LEEWAY)
        .map_err(|error| refused(format!("error validating token: {error}")))?;
    if !for_audience(role, &claims) {
        return Err(refused(format!("error validating token: {WRONG_AUDIENCE}")));
    }
    for (pointer, allowed) in [
        ("/kubernetes.io/namespace", &role.bound_namespaces),
        ("/kubernetes.io/serviceaccount/name", &role.bound_service_accounts),
    ] {
        let Some(value) = claims.pointer(pointer).and_then(Value::as_str) else {
            return Err(refused(format!("error validating claims: claim {pointer:?} is missing")));
        };
        if !is_bound(value, allowed) {
            return Err(refused(format!(
                "error validating claims: claim {pointer:?} does not match any associated bound \
                 claim values"
            )));
        }
    }
    Ok((role.clone(), claims, name.to_owned()))
}

fn kubernetes(auth: &Auth, body: &Value) -> Result<(Role, Value, String), Refused> {
    let name = text(body, "role").ok_or((400, "missing role".to_owned()))?;
    let token = text(body, "jwt").ok_or((400, "missing jwt".to_owned()))?;
    let role = auth.roles.get(name);
    let role = role.ok_or_else(|| (400, format!("invalid role name {name:?}")))?;
    let denied = |message: &str| (403, message.to_owned());
    let claims = auth.issuer.verify(token, STORE_LEEWAY).map_err(|error| match error {
        VerifyError::Format | VerifyError::Signature | VerifyError::Issuer => {
            denied(reply::INVALID_TOKEN)
        }
        VerifyError::Expired | VerifyError::NotYetValid | VerifyError::IssuedInTheFuture => {
            denied(&error.to_string())
        }
    })?;
    if !for_audience(role, &claims) {
        return Err(denied(WRONG_AUDIENCE));
    }
    let claim = |pointer| claims.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if !is_bound(claim("/kubernetes.io/serviceaccount/name"), &role.bound_service_accounts) {
        return Err(denied("service account name not authorized"));
    }
    if !is_bound(claim("/kubernetes.io/namespace"), &role.bound_namespaces) {
        return Err(denied("namespace not authorized"));
    }
    Ok((role.clone(), claims, name.to_owned()))
}

fn text<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body[key].as_str().filter(|text| !text.is_empty())
}

fn for_audience(role: &Role, claims: &Value) -> bool {
    let given = audiences(claims);
    role.bound_audiences.iter().any(|audience| given.contains(&audience.as_str()))
}

fn is_bound(value: &str, allowed: &[String]) -> bool {
    let fits =
        |glob: &String| glob.strip_suffix('*').map_or(glob == value, |it| value.starts_with(it));
    allowed.is_empty() || allowed.iter().any(fits)
}

fn grant(inner: &mut Inner, mount: &str, name: &str, role: &Role, claims: &Value) -> Answer {
    let claim = |pointer: &str| {
        claims.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let metadata: BTreeMap<String, String> = [
        ("ns", claim("/kubernetes.io/namespace")),
        ("role", name.to_owned()),
        ("sa", claim("/kubernetes.io/serviceaccount/name")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let entity = format!("{mount}/{}", claim("/sub"));
    inner.entities.insert(entity.clone(), metadata.clone());
    let now = Instant::now();
    let mut policies = vec!["default".to_owned()];
    policies.extend(role.policies.iter().cloned());
    let token = Token {
        accessor: random::hex::<12>(),
        policies,
        metadata,
        entity,
        ttl: role.token_ttl,
        expires: now + role.token_ttl,
        ends: now + role.token_max_ttl,
    };
    let id = format!("s.{}", random::hex::<12>());
    let answer = auth_of(&id, &token, now);
    inner.tokens.insert(id, token);
    reply::auth(answer)
}

fn auth_of(id: &str, token: &Token, now: Instant) -> Value {
    json!({
        "client_token": id, "accessor": token.accessor,
        "policies": token.policies, "token_policies": token.policies,
        "metadata": token.metadata,
        "lease_duration": token.expires.duration_since(now).as_secs(),
        "renewable": true, "entity_id": random::uuid(), "token_type": "service", "orphan": true,
        "mfa_requirement": null, "num_uses": 0,
    })
}

/// `auth/token/renew-self`.
pub(super) fn renew_self(inner: &mut Inner, id: &str, body: &Value) -> Answer {
    let Some(token) = inner.tokens.get_mut(id) else {
        return reply::error(400, "token is not renewable");
    };
    let now = Instant::now();
    let increment = match &body["increment"] {
        Value::Number(seconds) => seconds.as_u64(),
        Value::String(text) => text.trim_end_matches('s').parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let wanted = increment.filter(|it| *it > 0).map_or(token.ttl, Duration::from_secs);
    token.expires = (now + wanted).min(token.ends);
    reply::auth(auth_of(id, token, now))
}

/// `auth/token/lookup-self`.
pub(super) fn lookup_self(id: &str, asker: &Asker<'_>) -> Answer {
    let Asker::Token(token) = asker else {
        return reply::data(200, json!({"id": id, "policies": ["root"], "ttl": 0}));
    };
    let ttl = token.expires.saturating_duration_since(Instant::now()).as_secs();
    reply::data(
        200,
        json!({"id": id, "accessor": token.accessor, "policies": token.policies,
            "meta": token.metadata, "ttl": ttl, "renewable": true, "type": "service"}),
    )
}
