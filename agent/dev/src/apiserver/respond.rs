//! Answers: objects, lists, watches, writes, and `Status` for what fails.

use std::io;
use std::sync::Arc;

use futures::StreamExt as _;
use http::{Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::request::Recorded;
use super::state::{Inner, State, TokenReviewRequest};
use super::watch;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The answer to a request that met no fault and may be made.
pub(super) fn to(state: Arc<State>, request: Recorded) -> Response<Body> {
    if request.verb == "watch" {
        let lines = watch::stream(state, request).boxed();
        let body = BodyExt::boxed_unsync(StreamBody::new(lines));
        return response(200, "application/json", body);
    }
    state.change(|inner| match (request.verb, request.resource.as_str()) {
        ("create", "tokenreviews") => token_review(inner, &request),
        ("list", _) => list(inner, &request),
        ("get", _) => get(inner, &request),
        ("create", _) => create(inner, &request),
        ("patch", _) => patch(inner, &request),
        ("delete", _) => delete(inner, &request),
        _ => status(405, "MethodNotAllowed", "not part of this fake"),
    })
}

fn list(inner: &Inner, request: &Recorded) -> Response<Body> {
    let namespace = Some(request.namespace.as_str()).filter(|name| !name.is_empty());
    let items = inner.objects.list(&request.resource, namespace);
    let number = |key| request.parameter(key).and_then(|text| text.parse::<usize>().ok());
    let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let until = from.saturating_add(limit).min(items.len());
    let rest = if until < items.len() { until.to_string() } else { String::new() };
    let page = items.get(from..until).unwrap_or_default();
    let metadata =
        json!({"resourceVersion": inner.objects.version().to_string(), "continue": rest});
    let kind = page.first().and_then(|item| item["kind"].as_str()).unwrap_or("Object");
    let list = json!({"apiVersion": request.api_version(), "kind": format!("{kind}List"),
        "metadata": metadata, "items": page});
    object(200, &list)
}

fn get(inner: &Inner, request: &Recorded) -> Response<Body> {
    match inner.objects.get(&request.resource, &request.namespace, &request.name) {
        Some(found) => object(200, found),
        None => missing(request),
    }
}

fn create(inner: &mut Inner, request: &Recorded) -> Response<Body> {
    let mut new = request.body.clone();
    if let (None, Some(prefix)) =
        (new["metadata"]["name"].as_str(), new["metadata"]["generateName"].as_str())
    {
        new["metadata"]["name"] = json!(format!("{prefix}{:05x}", inner.objects.version()));
    }
    let Some(name) = new["metadata"]["name"].as_str().map(str::to_owned) else {
        return status(422, "Invalid", "metadata.name: Required value");
    };
    if inner.objects.get(&request.resource, &request.namespace, &name).is_some() {
        return status(409, "AlreadyExists", &format!("{name} already exists"));
    }
    new["metadata"]["namespace"] = json!(request.namespace);
    inner.objects.put(&request.resource, new);
    stored(inner, request, &name, 201)
}

fn patch(inner: &mut Inner, request: &Recorded) -> Response<Body> {
    let applies = request.content_type.starts_with("application/apply-patch");
    if applies && request.parameter("fieldManager").is_none() {
        return status(422, "Invalid", "fieldManager: Required value: is required for apply patch");
    }
    let old = inner.objects.get(&request.resource, &request.namespace, &request.name).cloned();
    let (code, mut new) = match old {
        Some(old) => (200, old),
        None if applies => (201, json!({})),
        None => return missing(request),
    };
    merge(&mut new, &request.body);
    new["metadata"]["name"] = json!(request.name);
    new["metadata"]["namespace"] = json!(request.namespace);
    inner.objects.put(&request.resource, new);
    stored(inner, request, &request.name, code)
}

fn delete(inner: &mut Inner, request: &Recorded) -> Response<Body> {
    if inner.objects.delete(&request.resource, &request.namespace, &request.name) {
        status(200, "Success", "deleted")
    } else {
        missing(request)
    }
}

/// Echoes the spec, token and all, as a real server does.
fn token_review(inner: &Inner, request: &Recorded) -> Response<Body> {
    let spec = &request.body["spec"];
    let audiences: Vec<&str> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let token = spec["token"].as_str().unwrap_or_default();
    let answered = match &inner.token_review {
        Some(answer) => answer(&TokenReviewRequest { token, audiences: &audiences }),
        None => json!({"authenticated": false, "error": "[invalid bearer token]"}),
    };
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": {}, "spec": spec, "status": answered});
    object(201, &review)
}

fn stored(inner: &Inner, request: &Recorded, name: &str, code: u16) -> Response<Body> {
    match inner.objects.get(&request.resource, &request.namespace, name) {
        Some(found) => object(code, found),
        None => missing(request),
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => {
                target.as_object_mut().map(|fields| fields.remove(key));
            }
            value => merge(&mut target[key], value),
        }
    }
}

fn missing(request: &Recorded) -> Response<Body> {
    status(404, "NotFound", &format!("{} \"{}\" not found", request.resource, request.name))
}

/// A `Status` object.
pub(super) fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "code": code, "reason": reason,
        "status": if code < 400 { "Success" } else { "Failure" }, "message": message})
}

pub(super) fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    object(code, &status_object(code, reason, message))
}

pub(super) fn text(code: u16, text: &'static str) -> Response<Body> {
    response(code, "text/plain", whole(Bytes::from_static(text.as_bytes())))
}

pub(super) fn retry_after(code: u16, seconds: u64) -> Response<Body> {
    let mut answer = text(code, "Too many requests, please try again later.");
    answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    answer
}

fn object(code: u16, object: &Value) -> Response<Body> {
    response(code, "application/json", whole(object.to_string().into()))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn response(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    let content_type = header::HeaderValue::from_static(content_type);
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}
