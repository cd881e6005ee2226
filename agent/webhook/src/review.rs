//! AdmissionReview `admission.k8s.io/v1`, in and out.
//!
//! Invariant: the answer carries the question's uid; a pod that can't be injected is refused with the
//! reasons, never let through as it is. What isn't the creation of a pod was sent by mistake of the
//! MutatingWebhookConfiguration, and the answer says so.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::inject::inject;
use crate::patch;
use crate::settings::Settings;

const API_VERSION: &str = "admission.k8s.io/v1";
/// Longest uid that is echoed, in bytes.
const MAX_UID_BYTES: usize = 128;

/// A body that is no AdmissionReview, so that no answer can be made.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Another kind or version.
    #[error("the body is no AdmissionReview of {API_VERSION}")]
    Kind,
    /// Nothing is asked.
    #[error("the review has no request with a uid")]
    Request,
}

/// What was decided, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The pod is patched.
    Injected,
    /// Nothing has to be added.
    Unchanged,
    /// The pod can't be injected.
    Refused,
}

/// Answers one review.
///
/// # Errors
/// The body is none.
pub fn answer(body: &[u8], settings: &Settings) -> Result<(Value, Decision), ReviewError> {
    let review: Value = serde_json::from_slice(body)?;
    if review["apiVersion"] != API_VERSION || review["kind"] != "AdmissionReview" {
        return Err(ReviewError::Kind);
    }
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|uid| (1..=MAX_UID_BYTES).contains(&uid.len()));
    let uid = uid.ok_or(ReviewError::Request)?;
    let (mut response, decision) = decide(request, settings);
    response["uid"] = json!(uid);
    let answer =
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response});
    Ok((answer, decision))
}

fn decide(request: &Value, settings: &Settings) -> (Value, Decision) {
    if !is_creation_of_pod(request) {
        let message = "sotto-webhook answers for the creation of pods only: mend the rules of its \
                       MutatingWebhookConfiguration";
        return (refusal(400, "BadRequest", message), Decision::Refused);
    }
    match inject(&request["object"], settings) {
        Ok(operations) if operations.is_empty() => (json!({"allowed": true}), Decision::Unchanged),
        Ok(operations) => {
            let patch = STANDARD.encode(patch::to_json(&operations).to_string());
            let response = json!({"allowed": true, "patchType": "JSONPatch", "patch": patch});
            (response, Decision::Injected)
        }
        Err(faults) => (refusal(422, "Invalid", &faults.in_one_line()), Decision::Refused),
    }
}

fn is_creation_of_pod(request: &Value) -> bool {
    let whole = match &request["subResource"] {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let resource = &request["resource"];
    let core = resource["group"].as_str().unwrap_or_default().is_empty();
    whole
        && core
        && resource["version"] == "v1"
        && resource["resource"] == "pods"
        && request["operation"] == "CREATE"
}

fn refusal(code: u16, reason: &str, message: &str) -> Value {
    json!({"allowed": false, "status": {"code": code, "reason": reason, "message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::parse("agent: { image: registry.example/agent:1 }\ntoken: { audience: bao }")
            .unwrap()
    }

    fn review() -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "operation": "CREATE", "dryRun": true, "namespace": "payments",
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": {
                    "metadata": {
                        "generateName": "web-",
                        "labels": {"sotto.dev/inject": "true"},
                        "annotations": {"sotto.dev/secret-provider-class": "db"},
                    },
                    "spec": {"containers": [{"name": "app"}]},
                },
            },
        })
    }

    fn answered(review: &Value) -> (Value, Decision) {
        answer(review.to_string().as_bytes(), &settings()).unwrap()
    }

    #[test]
    fn a_pod_that_asks_is_patched() {
        let (answer, decision) = answered(&review());
        assert_eq!(decision, Decision::Injected);
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        assert!(patch.as_array().unwrap().iter().all(|one| one["op"] == "add"));
    }

    #[test]
    fn a_pod_that_does_not_ask_is_let_through() {
        let mut review = review();
        review["request"]["object"]["metadata"]["labels"] = json!({});
        let (answer, decision) = answered(&review);
        assert_eq!(decision, Decision::Unchanged);
        assert_eq!(answer["response"], json!({"uid": "u-1", "allowed": true}));
    }

    #[test]
    fn a_pod_with_faults_is_refused_with_all_of_them() {
        let mut review = review();
        let object = &mut review["request"]["object"];
        object["metadata"]["annotations"]["sotto.dev/image"] = json!("evil");
        object["spec"]["hostPID"] = json!(true);
        let (answer, decision) = answered(&review);
        assert_eq!(decision, Decision::Refused);
        assert_eq!(answer["response"]["allowed"], false);
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains("sotto.dev/image") && message.contains("hostPID"), "{message}");
    }

    #[test]
    fn what_is_no_creation_of_a_pod_is_refused() {
        for (pointer, value) in [
            ("/request/operation", "UPDATE"),
            ("/request/resource/resource", "deployments"),
            ("/request/resource/group", "apps"),
            ("/request/subResource", "ephemeralcontainers"),
        ] {
            let mut review = review();
            review["request"]["subResource"] = json!("");
            *review.pointer_mut(pointer).unwrap() = json!(value);
            assert_eq!(answered(&review).1, Decision::Refused, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        let mut beta = review();
        beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
        let mut anonymous = review();
        anonymous["request"]["uid"] = json!("");
        for body in ["", "{", "[]", "null", &beta.to_string(), &anonymous.to_string()] {
            assert!(answer(body.as_bytes(), &settings()).is_err(), "{body}");
        }
    }
}
