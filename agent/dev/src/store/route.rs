//! From a request to an answer, without TLS or HTTP: the order of checks is the real server's.

use http::Method;
use serde_json::{Map, Value, json};

use super::kv::{Engine, Found, Kv2};
use super::policy::Capability;
use super::state::{Asker, Inner, Operation};
use super::{faults, login, reply};
use crate::https::Answer;

const NOT_VERSIONED: &str = "Invalid path for a versioned K/V secrets engine. See the API docs for \
    the appropriate API endpoints to use. If using the OpenBao CLI, use 'bao kv get' for this \
    operation.";
/// What KV version 1 says its values may be kept for: 32 days.
const KV1_LEASE_SECONDS: u64 = 2_764_800;

/// A request as the router sees it.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    /// Below `/v1/`.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl Ask<'_> {
    pub(super) fn operation(&self) -> Operation {
        match self.path {
            "sys/health" => Operation::Health,
            "auth/token/revoke-self" => Operation::Revoke,
            path if path.starts_with("auth/token/") => Operation::Renew,
            path if path.starts_with("auth/") && path.ends_with("/login") => Operation::Login,
            path if path.starts_with("sys/internal/ui/mounts") => Operation::Mounts,
            path if path.starts_with("sys/") => Operation::Other,
            _ if *self.method == Method::GET => Operation::Read,
            _ => Operation::Write,
        }
    }

    fn is_write(&self) -> bool {
        matches!(*self.method, Method::POST | Method::PUT)
    }

    fn capability(&self) -> Capability {
        match *self.method {
            Method::POST | Method::PUT | Method::PATCH => Capability::Write,
            Method::DELETE => Capability::Delete,
            _ => Capability::Read,
        }
    }
}

/// Answers a request that no fault has met.
pub(super) fn answer(inner: &mut Inner, ask: &Ask<'_>) -> Answer {
    if let Some(clean) = cleaned(ask.path) {
        return faults::redirect(&format!("/v1/{clean}"));
    }
    if ask.path == "sys/health" {
        return health(ask);
    }
    let body = match parse(ask.body) {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if ask.operation() == Operation::Login {
        return match ask.is_write() {
            true => login::login(inner, login_mount(ask.path), &body),
            false => reply::error(405, "unsupported operation"),
        };
    }
    let Some(asker) = inner.asker(ask.token) else {
        return reply::error(403, reply::INVALID_TOKEN);
    };
    let id = ask.token.unwrap_or_default();
    match ask.path {
        "auth/token/lookup-self" => return login::lookup_self(id, &asker),
        "auth/token/renew-self" => return login::renew_self(inner, id, &body),
        "auth/token/revoke-self" => {
            inner.tokens.remove(id);
            return reply::no_content();
        }
        _ => {}
    }
    if let Some(path) = ask.path.strip_prefix("sys/internal/ui/mounts/") {
        return mounts(inner, &asker, path);
    }
    if !inner.allows(&asker, ask.path, ask.capability()) {
        return reply::error(403, reply::POLICY_DENIES);
    }
    engine(inner, ask, &body)
}

/// `auth/<mount>/login`, where a mount may have slashes.
fn login_mount(path: &str) -> &str {
    let mount = path.strip_prefix("auth/").and_then(|rest| rest.strip_suffix("/login"));
    mount.unwrap_or_default()
}

/// The path that Go's router redirects to, where it isn't clean.
fn cleaned(path: &str) -> Option<String> {
    let mut clean: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    let slash = if path.ends_with('/') && !clean.is_empty() { "/" } else { "" };
    let clean = clean.join("/") + slash;
    (clean != path).then_some(clean)
}

fn parse(body: &[u8]) -> Result<Value, Answer> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body)
        .map_err(|_| reply::error(400, "failed to decode JSON input: unexpected EOF"))
}

fn health(ask: &Ask<'_>) -> Answer {
    if *ask.method != Method::GET && *ask.method != Method::HEAD {
        return reply::json_with(405, &json!({"errors": []}));
    }
    reply::json_with(
        200,
        &json!({"initialized": true, "sealed": false, "standby": false,
            "version": concat!("sotto-dev ", env!("CARGO_PKG_VERSION")), "cluster_name": "sotto-dev"}),
    )
}

fn mounts(inner: &Inner, asker: &Asker<'_>, path: &str) -> Answer {
    let found = inner.mounts.iter().find(|(mount, _)| {
        path.strip_prefix(mount.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    match found {
        Some((mount, engine)) if inner.reaches(asker, &format!("{mount}/")) => reply::data(
            200,
            json!({"type": "kv", "path": format!("{mount}/"), "description": "", "local": false,
                "options": {"version": engine.version()}}),
        ),
        Some(_) | None => {
            let mount = found.map_or(path, |(mount, _)| mount);
            let message = format!(
                "preflight capability check returned 403, please ensure client's policies grant \
                 access to path \"{mount}/\""
            );
            reply::error(403, &message)
        }
    }
}

fn engine(inner: &mut Inner, ask: &Ask<'_>, body: &Value) -> Answer {
    for (mount, engine) in &mut inner.mounts {
        let rest = ask.path.strip_prefix(mount.as_str()).and_then(|rest| rest.strip_prefix('/'));
        if let Some(path) = rest {
            return match engine {
                Engine::V1(values) => kv1(values, path, ask, body),
                Engine::V2(kv) => kv2(kv, path, ask, body),
            };
        }
    }
    let message = format!("no handler for route {:?}. route entry not found.", ask.path);
    reply::error(404, &message)
}

fn kv1(
    values: &mut std::collections::BTreeMap<String, Value>,
    path: &str,
    ask: &Ask<'_>,
    body: &Value,
) -> Answer {
    match *ask.method {
        Method::GET => values
            .get(path)
            .map_or_else(reply::not_found, |value| reply::leased(KV1_LEASE_SECONDS, value.clone())),
        Method::POST | Method::PUT => {
            values.insert(path.to_owned(), body.clone());
            reply::no_content()
        }
        Method::DELETE => {
            values.remove(path);
            reply::no_content()
        }
        _ => reply::error(405, "1 error occurred:\n\t* unsupported operation\n\n"),
    }
}

fn kv2(kv: &mut Kv2, path: &str, ask: &Ask<'_>, body: &Value) -> Answer {
    let Some((endpoint, secret)) = path.split_once('/') else {
        return reply::warning(404, NOT_VERSIONED);
    };
    let numbers: Vec<u64> =
        body["versions"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    match (endpoint, ask.is_write(), ask.method) {
        ("data", false, &Method::GET) => read(kv, secret, ask.query),
        ("data", true, _) => match &body["data"] {
            Value::Object(data) => write(kv, secret, data.clone()),
            _ => reply::error(400, "no data provided"),
        },
        ("data", false, &Method::DELETE) => done(kv.delete(secret, &[])),
        ("delete", true, _) => done(kv.delete(secret, &numbers)),
        ("undelete", true, _) => done(kv.undelete(secret, &numbers)),
        ("destroy", true, _) => done(kv.destroy(secret, &numbers)),
        ("metadata", false, &Method::DELETE) => done(kv.forget(secret)),
        ("metadata", false, &Method::GET) => {
            kv.metadata(secret).map_or_else(reply::not_found, |metadata| reply::data(200, metadata))
        }
        _ => reply::warning(404, NOT_VERSIONED),
    }
}

/// 204, whether there was such a secret or not.
fn done(_found: bool) -> Answer {
    reply::no_content()
}

fn write(kv: &mut Kv2, secret: &str, data: Map<String, Value>) -> Answer {
    let (_, metadata) = kv.write(secret, data);
    reply::data(200, metadata)
}

fn read(kv: &Kv2, secret: &str, query: &str) -> Answer {
    let version = query.split('&').find_map(|pair| pair.strip_prefix("version="));
    let Ok(version) = version.unwrap_or("0").parse() else {
        return reply::error(
            400,
            "Field validation failed: error converting input for field \"version\": '' cannot \
             parse value as 'int': strconv.ParseInt: invalid syntax",
        );
    };
    match kv.read(secret, version) {
        Found::Nothing => reply::not_found(),
        Found::Gone(data) => reply::data(404, data),
        Found::Value(data) => reply::data(200, data),
    }
}
