//! The CSIDriver object compared with what the configuration needs, once at start: a mismatch shows
//! otherwise only when a pod waits for its volume.

use std::time::Duration;

use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use kube::Api;
use sotto_core::identity::Audience;

use crate::api_error::ApiError;
use crate::calls::GET_DRIVER;
use crate::client::{Cluster, within};

/// A token that lives longer is advised against; without a wish kubelet asks for one of this life.
const LONGEST_USEFUL_LIFE_SECONDS: i64 = 3600;

/// Something about the CSIDriver object that keeps pods from getting their secrets, or will.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// There is no such object: kubelet sends neither the pod's identity nor its token.
    #[error("there is no CSIDriver object {driver}: apply deploy/base")]
    Missing {
        /// The driver's name.
        driver: String,
    },
    /// A store's audience isn't requested.
    #[error(
        "CSIDriver {driver} doesn't request tokens for the audience {audience}, which a configured \
         store needs: add it to spec.tokenRequests, or pods can't use that store"
    )]
    AudienceMissing {
        /// The driver's name.
        driver: String,
        /// The store's audience.
        audience: Audience,
    },
    /// A token is requested that no store needs.
    #[error(
        "CSIDriver {driver} requests tokens for the audience {audience:?}, which no configured store \
         uses: remove it from spec.tokenRequests, so that it isn't sent to the node"
    )]
    AudienceUnused {
        /// The driver's name.
        driver: String,
        /// The audience; empty means the API server itself.
        audience: String,
    },
    /// A token lives long: it can be replayed as long.
    #[error(
        "CSIDriver {driver} requests tokens that live for {seconds} s for the audience {audience:?}: \
         set expirationSeconds to 600"
    )]
    LongLived {
        /// The driver's name.
        driver: String,
        /// The audience.
        audience: String,
        /// Their life.
        seconds: i64,
    },
    /// A field has another value than the driver needs.
    #[error("CSIDriver {driver} has {field}: {is}, and needs {needs}: {because}")]
    Field {
        /// The driver's name.
        driver: String,
        /// The field.
        field: &'static str,
        /// Its value.
        is: String,
        /// The value needed.
        needs: &'static str,
        /// What goes wrong otherwise.
        because: &'static str,
    },
}

impl Finding {
    /// Whether pods wait in vain; otherwise it is advice.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::AudienceMissing { .. } | Self::Field { .. } => true,
            Self::AudienceUnused { .. } | Self::LongLived { .. } => false,
        }
    }
}

/// Reads the object and compares it; no findings means that all is well.
///
/// # Errors
/// Nothing is known: the API server gave no answer.
pub async fn check(
    cluster: &Cluster,
    driver: &str,
    audiences: &[Audience],
    deadline: Duration,
) -> Result<Vec<Finding>, ApiError> {
    let api: Api<CSIDriver> = Api::all(cluster.client());
    match within(GET_DRIVER, deadline, api.get(driver)).await {
        Ok(object) => Ok(compare(driver, &object.spec, audiences)),
        Err(ApiError::NotFound { .. }) => Ok(vec![Finding::Missing { driver: driver.to_owned() }]),
        Err(error) => Err(error),
    }
}

fn compare(driver: &str, spec: &CSIDriverSpec, audiences: &[Audience]) -> Vec<Finding> {
    let mut findings = fields(driver, spec);
    let requests = spec.token_requests.as_deref().unwrap_or_default();
    for audience in audiences {
        if !requests.iter().any(|request| request.audience == audience.as_str()) {
            let (driver, audience) = (driver.to_owned(), audience.clone());
            findings.push(Finding::AudienceMissing { driver, audience });
        }
    }
    for request in requests {
        let (driver, audience) = (driver.to_owned(), request.audience.clone());
        if !audiences.iter().any(|wanted| wanted.as_str() == audience) {
            findings.push(Finding::AudienceUnused { driver, audience });
        } else if let Some(seconds) =
            request.expiration_seconds.filter(|seconds| too_long(*seconds))
        {
            findings.push(Finding::LongLived { driver, audience, seconds });
        }
    }
    findings
}

fn too_long(seconds: i64) -> bool {
    seconds > LONGEST_USEFUL_LIFE_SECONDS
}

/// Fields of the object, the value each needs, and what goes wrong with another.
const FIELDS: [(&str, &str, &str); 5] = [
    (
        "podInfoOnMount",
        "true",
        "kubelet doesn't say which pod a volume is for, and every mount is refused",
    ),
    (
        "requiresRepublish",
        "true",
        "kubelet brings no fresh tokens, and secrets go stale when the first one ends",
    ),
    ("attachRequired", "false", "kubelet waits for an attachment that nobody makes"),
    (
        "volumeLifecycleModes",
        "[Ephemeral]",
        "kubelet refuses the driver for a pod's own csi volume",
    ),
    ("fsGroupPolicy", "None", "kubelet tries to change the owner of files in a read-only mount"),
];

fn fields(driver: &str, spec: &CSIDriverSpec) -> Vec<Finding> {
    let flag = |value: Option<bool>, default| value.unwrap_or(default).to_string();
    let modes = spec.volume_lifecycle_modes.clone();
    let modes = modes.unwrap_or_else(|| vec!["Persistent".to_owned()]);
    let is_ephemeral = modes.iter().any(|mode| mode == "Ephemeral");
    let chowns = spec.fs_group_policy.as_deref() == Some("File");
    let values = [
        flag(spec.pod_info_on_mount, false),
        flag(spec.requires_republish, false),
        flag(spec.attach_required, true),
        if is_ephemeral { "[Ephemeral]".to_owned() } else { format!("{modes:?}") },
        // The default leaves an inline volume alone, too: it has no file system type.
        if chowns { "File".to_owned() } else { "None".to_owned() },
    ];
    FIELDS
        .iter()
        .zip(values)
        .filter(|((_, needs, _), is)| is != needs)
        .map(|(&(field, needs, because), is)| {
            let driver = driver.to_owned();
            Finding::Field { driver, field, is, needs, because }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true,
            "volumeLifecycleModes": ["Ephemeral"], "fsGroupPolicy": "None",
            "tokenRequests": [{"audience": "bao", "expirationSeconds": 600}]})
    }

    fn found(spec: Value) -> Vec<String> {
        let spec: CSIDriverSpec = serde_json::from_value(spec).unwrap();
        let findings = compare("csi.sotto.dev", &spec, &[Audience::parse("bao").unwrap()]);
        findings.iter().map(ToString::to_string).collect()
    }

    fn found_with(field: &str, value: Value) -> String {
        let mut spec = good();
        spec[field] = value;
        let found = found(spec);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap_or_default()
    }

    #[test]
    fn an_object_that_fits_has_no_findings() {
        assert_eq!(found(good()), Vec::<String>::new());
    }

    #[test]
    fn a_missing_audience_is_named_with_what_to_do() {
        let text = found_with("tokenRequests", json!(null));
        assert!(text.contains("audience bao") && text.contains("spec.tokenRequests"), "{text}");
        let both = found({
            let mut spec = good();
            spec["tokenRequests"] = json!([{"audience": ""}]);
            spec
        });
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[1].contains("no configured store uses"), "{both:?}");
    }

    #[test]
    fn each_field_that_would_break_a_mount_is_found() {
        for field in ["podInfoOnMount", "requiresRepublish"] {
            for value in [json!(false), json!(null)] {
                let text = found_with(field, value);
                assert!(text.contains(&format!("{field}: false, and needs true")), "{text}");
            }
        }
        assert!(found_with("attachRequired", json!(null)).contains("attachRequired: true"));
        assert!(found_with("volumeLifecycleModes", json!(null)).contains("Persistent"));
        assert!(found_with("fsGroupPolicy", json!("File")).contains("fsGroupPolicy: File"));
    }

    #[test]
    fn tokens_that_live_long_are_advised_against() {
        let request = json!([{"audience": "bao", "expirationSeconds": 86400}]);
        assert!(found_with("tokenRequests", request).contains("live for 86400 s"));
    }
}
