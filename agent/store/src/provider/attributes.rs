//! What a provider is told, encoded as the reference driver does.
//!
//! Invariant: of the pod's tokens only the one for this provider's audience is in it. The texts hold the
//! token and secrets: they go into one request and nowhere else.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sotto_core::attributes::SERVICE_ACCOUNT_TOKENS;
use sotto_core::identity::{Audience, PodUid};
use sotto_core::secret::SecretString;
use sotto_proto::provider::v1alpha1::{MountRequest, ObjectVersion};
use zeroize::Zeroizing;

use crate::plan::ProviderPlan;
use crate::session::PublishSecrets;

/// 0644, as the reference driver asks for; each file of the answer says its own.
const PERMISSION: u32 = 0o644;
/// The end of the year 9999: RFC 3339 has four digits for a year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Where nothing can be written or read, not even by root: what a provider writes itself would lie on the
/// node's disk, under a mount that isn't there yet. The rest has kubelet's form, for who reads the pod's uid
/// out of it.
pub(super) const TARGET_PREFIX: &str = "/dev/null/pods/";

/// `TokenRequestStatus` of the Kubernetes API.
#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    #[serde(rename = "expirationTimestamp")]
    expires: String,
}

#[derive(Deserialize)]
struct Expiry {
    exp: u64,
}

/// The request; `None` if the token, which the caller has verified, says no end.
pub(super) fn request(
    plan: &ProviderPlan,
    audience: &Audience,
    jwt: &SecretString,
    secrets: &PublishSecrets,
    current_object_version: Vec<ObjectVersion>,
) -> Option<MountRequest> {
    Some(MountRequest {
        attributes: attributes(plan, audience, jwt)?,
        secrets: encoded(secrets),
        target_path: target_path(&plan.pod),
        permission: PERMISSION.to_string(),
        current_object_version,
    })
}

fn attributes(plan: &ProviderPlan, audience: &Audience, jwt: &SecretString) -> Option<String> {
    let token = Token { token: jwt.expose(), expires: expiry(jwt)? };
    let tokens = BTreeMap::from([(audience.as_str(), token)]);
    let tokens = Zeroizing::new(serde_json::to_string(&tokens).ok()?);
    let mut all: BTreeMap<&str, &str> =
        plan.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    all.insert(SERVICE_ACCOUNT_TOKENS, &tokens);
    serde_json::to_string(&all).ok()
}

/// Go's encoding of a map that nothing was put into is `null`.
fn encoded(secrets: &PublishSecrets) -> String {
    let map: BTreeMap<&str, &str> = secrets.expose().collect();
    let map = (!map.is_empty()).then_some(map);
    serde_json::to_string(&map).expect("a map of texts is JSON")
}

fn target_path(pod: &PodUid) -> String {
    format!("{TARGET_PREFIX}{pod}/volumes/kubernetes.io~csi/sotto/mount")
}

/// `exp` in RFC 3339, out of a token that was verified.
fn expiry(jwt: &SecretString) -> Option<String> {
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(jwt.expose().split('.').nth(1)?).ok()?);
    let Expiry { exp } = serde_json::from_slice(&claims).ok()?;
    (exp <= LAST_SECOND).then(|| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(exp)).to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> SecretString {
        SecretString::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn the_expiry_is_the_tokens_own() {
        let at = |claims: &str| expiry(&jwt(claims));
        assert_eq!(at(r#"{"exp":1764028800}"#).as_deref(), Some("2025-11-25T00:00:00Z"));
        assert_eq!(at(r#"{"exp":253402300799}"#).as_deref(), Some("9999-12-31T23:59:59Z"));
        for claims in [r#"{"exp":253402300800}"#, r#"{"exp":"soon"}"#, "{}", "[]", ""] {
            assert_eq!(at(claims), None, "{claims}");
        }
        assert_eq!(expiry(&SecretString::new("no-token".to_owned())), None);
    }

    #[test]
    fn secrets_are_a_map_or_null() {
        assert_eq!(encoded(&PublishSecrets::default()), "null");
        let value = |text: &str| SecretString::new(text.to_owned());
        let secrets = PublishSecrets::new(vec![
            ("username".to_owned(), value("u\"x")),
            ("password".to_owned(), value("p")),
        ]);
        assert_eq!(encoded(&secrets), r#"{"password":"p","username":"u\"x"}"#);
    }

    #[test]
    fn the_target_path_has_kubelets_form_and_can_be_no_file() {
        let path = target_path(&PodUid::parse("uid-1").unwrap());
        assert_eq!(path, "/dev/null/pods/uid-1/volumes/kubernetes.io~csi/sotto/mount");
        let error = std::fs::create_dir_all(&path).unwrap_err();
        assert_ne!(error.kind(), std::io::ErrorKind::NotFound, "somebody could make it");
    }
}
