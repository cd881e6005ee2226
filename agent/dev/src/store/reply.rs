//! Answers in the words of OpenBao 2.7.2, seen on the real server.

use serde_json::{Value, json};

use crate::https::Answer;
use crate::random;

/// The token is missing, unknown, revoked or expired.
pub(super) const INVALID_TOKEN: &str = "permission denied";
/// A policy denies.
pub(super) const POLICY_DENIES: &str = "1 error occurred:\n\t* permission denied\n\n";
pub(super) const SEALED: &str = "Vault is sealed";

pub(super) fn json_with(status: u16, body: &Value) -> Answer {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
    ];
    Answer { status, headers, body: format!("{body}\n").into() }
}

pub(super) fn error(status: u16, message: &str) -> Answer {
    json_with(status, &json!({"errors": [message]}))
}

/// `{"errors":[]}`: there is nothing here.
pub(super) fn not_found() -> Answer {
    json_with(404, &json!({"errors": []}))
}

pub(super) fn no_content() -> Answer {
    let headers = vec![("content-type", "application/json".to_owned())];
    Answer { status: 204, headers, body: Default::default() }
}

pub(super) fn data(status: u16, data: Value) -> Answer {
    json_with(status, &envelope(0, data, Value::Null, Value::Null))
}

/// `data` that says for how long it may be kept, as KV version 1 does.
pub(super) fn leased(seconds: u64, data: Value) -> Answer {
    json_with(200, &envelope(seconds, data, Value::Null, Value::Null))
}

pub(super) fn warning(status: u16, text: &str) -> Answer {
    json_with(status, &envelope(0, Value::Null, json!([text]), Value::Null))
}

pub(super) fn auth(auth: Value) -> Answer {
    json_with(200, &envelope(0, Value::Null, Value::Null, auth))
}

fn envelope(lease_duration: u64, data: Value, warnings: Value, auth: Value) -> Value {
    json!({
        "request_id": random::uuid(), "lease_id": "", "renewable": false,
        "lease_duration": lease_duration, "data": data, "wrap_info": null,
        "warnings": warnings, "auth": auth,
    })
}
