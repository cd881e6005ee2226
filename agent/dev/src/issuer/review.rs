//! TokenReview, as an API server answers it: what a store's kubernetes auth method asks.

use std::time::Duration;

use serde_json::{Value, json};

use super::Issuer;
use super::verify::audiences;

/// The audience that a review without `spec.audiences` means.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

impl Issuer {
    /// The whole TokenReview with its `status`.
    #[must_use]
    pub fn review(&self, review: &Value) -> Value {
        let mut answer = review.clone();
        answer["status"] = match self.reviewed(&review["spec"]) {
            Ok(status) => status,
            Err(error) => json!({"authenticated": false, "user": {}, "error": error}),
        };
        answer
    }

    fn reviewed(&self, spec: &Value) -> Result<Value, String> {
        let token = spec["token"].as_str().unwrap_or_default();
        let claims = self
            .verify(token, Duration::ZERO)
            .map_err(|error| format!("invalid token: {error}"))?;
        let wanted: Vec<&str> = spec["audiences"].as_array().map_or_else(
            || vec![API_AUDIENCE],
            |list| list.iter().filter_map(Value::as_str).collect(),
        );
        let given = audiences(&claims);
        let shared: Vec<&str> =
            wanted.iter().copied().filter(|audience| given.contains(audience)).collect();
        if shared.is_empty() {
            return Err(format!(
                "token audiences {given:?} is invalid for the target audiences {wanted:?}"
            ));
        }
        let bound = &claims["kubernetes.io"];
        let pod_uid = bound["pod"]["uid"].as_str().unwrap_or_default();
        if self.is_forgotten(pod_uid) {
            return Err("service account token has been invalidated: pod not found".to_owned());
        }
        Ok(json!({"authenticated": true, "user": user(&claims), "audiences": shared}))
    }
}

fn user(claims: &Value) -> Value {
    let bound = &claims["kubernetes.io"];
    let namespace = bound["namespace"].as_str().unwrap_or_default();
    json!({
        "username": claims["sub"],
        "uid": bound["serviceaccount"]["uid"],
        "groups": [
            "system:serviceaccounts",
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ],
        "extra": {
            "authentication.kubernetes.io/credential-id":
                [format!("JTI={}", claims["jti"].as_str().unwrap_or_default())],
            "authentication.kubernetes.io/node-name": [bound["node"]["name"]],
            "authentication.kubernetes.io/node-uid": [bound["node"]["uid"]],
            "authentication.kubernetes.io/pod-name": [bound["pod"]["name"]],
            "authentication.kubernetes.io/pod-uid": [bound["pod"]["uid"]],
        },
    })
}
