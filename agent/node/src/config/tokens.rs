//! `tokens`: whose tokens are believed, and by which keys.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use sotto_core::identity::StoreName;
use sotto_store::Stores;
use sotto_volume::token::{FileKeys, HttpsKeys, Keys, UrlKeys};

use super::section::{self, Section};
use super::{ClassesFrom, Fault, Mode};

/// How far clocks may differ by default.
const DEFAULT_LEEWAY: Duration = Duration::from_secs(10);
/// How far they may be allowed to.
const LARGEST_LEEWAY: Duration = Duration::from_secs(60);

/// Whose tokens are believed.
pub struct Tokens {
    /// The issuer that they must name.
    pub issuer: String,
    /// Its keys.
    pub keys: Keys,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Stores whose pods' tokens the API server is asked about too.
    pub review: BTreeSet<StoreName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    issuer: String,
    jwks: RawKeys,
    leeway: Option<String>,
    #[serde(default)]
    review: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeys {
    file: Option<PathBuf>,
    url: Option<String>,
    ca: Option<PathBuf>,
}

pub(super) fn read(root: &mut Section, mode: Mode, faults: &mut Vec<Fault>) -> Option<Tokens> {
    let Some(raw) = root.take("tokens") else {
        faults.push(Fault::new("tokens", "missing: say whose tokens are believed"));
        return None;
    };
    let raw: Raw = section::read(raw, "tokens", &["issuer", "jwks"], faults)?;
    if let Some(message) = issuer_fault(&raw.issuer, mode) {
        faults.push(Fault::new("tokens.issuer", message));
    }
    let leeway = leeway(raw.leeway.as_deref(), faults);
    let review = review(raw.review, faults);
    let keys = keys(raw.jwks, faults);
    Some(Tokens { issuer: raw.issuer, keys: keys?, leeway, review })
}

fn review(names: Vec<String>, faults: &mut Vec<Fault>) -> BTreeSet<StoreName> {
    let mut review = BTreeSet::new();
    for (index, name) in names.into_iter().enumerate() {
        match StoreName::parse(name) {
            Ok(name) => drop(review.insert(name)),
            Err(error) => faults.push(Fault::new(format!("tokens.review[{index}]"), error)),
        }
    }
    review
}

impl Tokens {
    /// What of `review` doesn't fit the rest of the configuration.
    pub(super) fn review_faults(&self, stores: &Stores, classes: &ClassesFrom) -> Vec<Fault> {
        let unknown = self.review.iter().filter(|name| stores.get(name).is_none());
        let mut faults: Vec<_> = unknown
            .map(|name| {
                let message =
                    format!("no store is named {name}: use the name of one of the stores");
                Fault::new("tokens.review", message)
            })
            .collect();
        if matches!(classes, ClassesFrom::Directory(_)) && !self.review.is_empty() {
            let message = "reviews need an API server: remove it, or take classes from the cluster";
            faults.push(Fault::new("tokens.review", message));
        }
        faults
    }
}

fn issuer_fault(issuer: &str, mode: Mode) -> Option<&'static str> {
    let uri: Option<Uri> = issuer.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or(issuer);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if issuer.trim().is_empty() {
        return Some(
            "empty: write what `kubectl get --raw /.well-known/openid-configuration` says",
        );
    }
    // RFC 6761 reserves the name, so that no real issuer has it; that of the development tools does.
    if (host == "invalid" || host.ends_with(".invalid")) && mode == Mode::Production {
        return Some("an issuer in .invalid is believed only with --development");
    }
    None
}

fn leeway(text: Option<&str>, faults: &mut Vec<Fault>) -> Duration {
    let Some(text) = text else { return DEFAULT_LEEWAY };
    match humantime::parse_duration(text) {
        Ok(leeway) if leeway <= LARGEST_LEEWAY => return leeway,
        Ok(_) => faults.push(Fault::new("tokens.leeway", "at most 60s: set the clocks instead")),
        Err(_) => faults.push(Fault::new("tokens.leeway", "not a duration: write e.g. 10s")),
    }
    DEFAULT_LEEWAY
}

fn keys(raw: RawKeys, faults: &mut Vec<Fault>) -> Option<Keys> {
    match (raw.file, raw.url, raw.ca) {
        (Some(file), None, None) => match std::fs::File::open(&file) {
            Ok(_) => Some(Keys::File(FileKeys::new(file))),
            Err(error) => {
                let message = format!("{} can't be read: {error}", file.display());
                faults.push(Fault::new("tokens.jwks.file", message));
                None
            }
        },
        (None, Some(url), Some(ca)) => https_keys(&url, ca, faults),
        (None, Some(_), None) => {
            let message = "missing: name the CA that the issuer is believed by";
            faults.push(Fault::new("tokens.jwks.ca", message));
            None
        }
        (Some(_), None, Some(_)) => {
            let message = "a file needs no CA: write file, or url with ca";
            faults.push(Fault::new("tokens.jwks.ca", message));
            None
        }
        (Some(_), Some(_), _) | (None, None, _) => {
            faults.push(Fault::new("tokens.jwks", "write either file, or url with ca"));
            None
        }
    }
}

fn https_keys(url: &str, ca: PathBuf, faults: &mut Vec<Fault>) -> Option<Keys> {
    let uri = url.parse::<Uri>().ok().filter(|uri| {
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
    });
    let Some(uri) = uri else {
        let message =
            format!("{url:?} is no address: write e.g. https://issuer.example/openid/v1/jwks");
        faults.push(Fault::new("tokens.jwks.url", message));
        return None;
    };
    match HttpsKeys::new(uri, ca) {
        Ok(keys) => Some(Keys::Url(UrlKeys::new(Box::new(keys)))),
        Err(error) => {
            faults.push(Fault::new("tokens.jwks.ca", error));
            None
        }
    }
}
