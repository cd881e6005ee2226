//! The request and the answer, in buffers that are wiped.

use std::collections::BTreeMap;

use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use sotto_core::identity::Audience;
use sotto_core::secret::SecretString;
use zeroize::{Zeroize as _, Zeroizing};

use super::ReviewError;
use crate::api_error::ApiError;
use crate::calls::REVIEW_TOKEN;
use crate::text;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Far more than a review with the token's echo needs.
const LARGEST_ANSWER_BYTES: usize = 256 << 10;
/// More than the fixed part of the request, so that the buffer never grows and leaves a copy behind.
const REQUEST_FRAME_BYTES: usize = 512;
/// Longest part of the API server's reason that is shown.
const LONGEST_REASON_BYTES: usize = 300;
/// The prefix of what the API server adds to a bound token's user.
const EXTRA: &str = "authentication.kubernetes.io/";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

/// Only the status is read: the spec that is echoed holds the token.
#[derive(Deserialize)]
struct Reviewed {
    status: Answer,
}

/// `TokenReviewStatus`; whatever is absent is a no.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) authenticated: bool,
    pub(super) user: User,
    #[serde(deserialize_with = "or_default")]
    pub(super) audiences: Vec<String>,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct User {
    pub(super) username: String,
    #[serde(deserialize_with = "or_default")]
    extra: BTreeMap<String, Vec<String>>,
}

impl Default for Answer {
    fn default() -> Self {
        let (user, audiences, error) = (User::default(), Vec::new(), String::new());
        Self { authenticated: false, user, audiences, error }
    }
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Answer {
    /// Why not, fit to be shown: nothing that could be the token.
    pub(super) fn reason(&self, token: &SecretString) -> String {
        let repeats = token.expose().split('.').any(|part| {
            const SHORTEST_TELLING_PART: usize = 8;
            part.len() >= SHORTEST_TELLING_PART && self.error.contains(part)
        });
        if self.error.is_empty() {
            "it gave no reason".to_owned()
        } else if repeats {
            "its reason repeats the token and is not shown".to_owned()
        } else {
            text::one_line(&self.error, LONGEST_REASON_BYTES)
        }
    }

    /// The one value of an extra key.
    pub(super) fn extra(&self, key: &str, what: &'static str) -> Result<&str, ReviewError> {
        match self.user.extra.get(&format!("{EXTRA}{key}")).map(Vec::as_slice) {
            Some([value]) => Ok(value),
            None | Some(_) => Err(ReviewError::NotBound { missing: what }),
        }
    }

    pub(super) fn credential_id(&self) -> Option<String> {
        const LONGEST_ID_BYTES: usize = 128;
        let id = self.extra("credential-id", "the credential's id").ok()?;
        Some(text::one_line(id, LONGEST_ID_BYTES))
    }
}

/// Sends the review; the caller bounds the time.
pub(super) async fn ask(
    client: &kube::Client,
    token: &SecretString,
    audience: &Audience,
) -> Result<Answer, ApiError> {
    let malformed = |reason| ApiError::Malformed { call: REVIEW_TOKEN, reason };
    let body = Body::from(Bytes::from_owner(body(token, audience)?));
    let request = Request::builder()
        .method(Method::POST)
        .uri(PATH)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(body)
        .map_err(|_| malformed("the request can't be built"))?;
    let sent = client.send(request).await;
    let response = sent.map_err(|error| ApiError::from_kube(REVIEW_TOKEN, error))?;
    let status = response.status();
    if !status.is_success() {
        // The body isn't looked at: it could repeat the token.
        let reason = status.canonical_reason().unwrap_or("no reason given");
        return Err(ApiError::from_code(REVIEW_TOKEN, status.as_u16(), reason));
    }
    let text = collect(response.into_body()).await?;
    let reviewed: Reviewed =
        serde_json::from_slice(&text).map_err(|_| malformed("it isn't a TokenReview"))?;
    Ok(reviewed.status)
}

fn body(token: &SecretString, audience: &Audience) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let review = Review {
        api_version: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: Spec { token: token.expose(), audiences: [audience.as_str()] },
    };
    // JSON needs at most six bytes for one; a JWT needs one.
    let longest = REQUEST_FRAME_BYTES + 6 * (token.expose().len() + audience.as_str().len());
    let mut body = Zeroizing::new(Vec::with_capacity(longest));
    serde_json::to_writer(&mut *body, &review).map_err(|_| ApiError::Malformed {
        call: REVIEW_TOKEN,
        reason: "the request can't be written",
    })?;
    Ok(body)
}

/// The whole answer; each frame is wiped once it was copied.
async fn collect(mut body: Body) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let hint = body.size_hint().lower();
    let capacity = usize::try_from(hint).unwrap_or(0).clamp(16 << 10, LARGEST_ANSWER_BYTES);
    let mut text = Zeroizing::new(Vec::with_capacity(capacity));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::from_kube(REVIEW_TOKEN, error))?;
        let Ok(data) = frame.into_data() else { continue };
        if text.len() + data.len() > LARGEST_ANSWER_BYTES {
            let reason = "it is longer than any TokenReview";
            return Err(ApiError::Malformed { call: REVIEW_TOKEN, reason });
        }
        text.extend_from_slice(&data);
        if let Ok(mut data) = data.try_into_mut() {
            data.as_mut().zeroize();
        }
    }
    Ok(text)
}
