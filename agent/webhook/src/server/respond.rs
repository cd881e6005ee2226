//! One HTTP request to its response.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use tokio::sync::Semaphore;

use crate::review::{self, Decision};
use crate::settings::Settings;

/// Where reviews are posted.
const PATH: &str = "/mutate";
const JSON: &str = "application/json";
/// Largest review, in bytes: the API server takes no larger object.
const MAX_BODY_BYTES: usize = 3 << 20;
/// How long one request may take; the API server gives up at its own `timeoutSeconds`, 5.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Reviews that are looked at at a time: each is parsed whole.
const MAX_REVIEWS: usize = 8;

pub(super) struct Responder {
    settings: Settings,
    places: Semaphore,
}

/// A request that isn't answered with a review.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl Responder {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, places: Semaphore::new(MAX_REVIEWS) }
    }

    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match tokio::time::timeout(REQUEST_DEADLINE, self.answer(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(Refused(StatusCode::REQUEST_TIMEOUT, "the request took too long".to_owned()))
            }
        };
        match answer {
            Ok(review) => response(StatusCode::OK, JSON, review),
            Err(Refused(status, why)) => {
                tracing::warn!(status = status.as_u16(), why, "a request was refused");
                let mut response = response(status, "text/plain; charset=utf-8", why + "\n");
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                }
                response
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<String, Refused> {
        check(&request)?;
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => too_large(),
            None => Refused(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}")),
        })?;
        let body = body.to_bytes();
        let place = self.places.acquire().await;
        let (review, decision) = review::answer(&body, &self.settings)
            .map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
        drop(place);
        log(&review, decision);
        Ok(review.to_string())
    }
}

fn check(request: &Request<Incoming>) -> Result<(), Refused> {
    // The API server adds `?timeout=`.
    if request.uri().path() != PATH {
        return Err(Refused(StatusCode::NOT_FOUND, format!("reviews are posted to {PATH}")));
    }
    if request.method() != Method::POST {
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "reviews are posted".to_owned()));
    }
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media_type = content_type.and_then(|it| it.split(';').next()).map(str::trim);
    if !media_type.is_some_and(|it| it.eq_ignore_ascii_case(JSON)) {
        let why = format!("reviews are {JSON}");
        return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> Refused {
    let why = format!("the review has more than {MAX_BODY_BYTES} bytes");
    Refused(StatusCode::PAYLOAD_TOO_LARGE, why)
}

fn log(review: &serde_json::Value, decision: Decision) {
    let uid = review["response"]["uid"].as_str();
    match decision {
        Decision::Injected => tracing::info!(uid, "a pod was injected"),
        Decision::Unchanged => tracing::info!(uid, "a pod needs nothing"),
        Decision::Refused => {
            let why = review["response"]["status"]["message"].as_str();
            tracing::warn!(uid, why, "a pod was refused");
        }
    }
}

fn response(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
