//! What an answer's JSON holds for one object.
//!
//! Invariant: the body stays where it is, in wiped memory; what is looked at are slices of it. Only the
//! value that an object asks for is copied, into wiped memory of its own.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use sotto_core::secret::{SecretBytes, SecretString};
use zeroize::Zeroizing;

use crate::plan::{Encoding, Pick};

/// An answer of the API, as slices of its body.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow, default)]
    lease_id: Cow<'a, str>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    warnings: Option<&'a RawValue>,
    /// The members of `data`, once somebody asks for one.
    #[serde(skip)]
    members: OnceCell<Option<Map<'a>>>,
}

/// A KV version 2 engine's account of a version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct KvMetadata {
    version: u64,
    created_time: String,
    destroyed: bool,
}

/// Why a value can't be had out of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PickError {
    NoData,
    NoSuchKey,
    BadEncoding,
}

/// What a 404 with a body says about a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    Missing,
    Deleted,
    Destroyed,
    NoDataSegment,
}

type Map<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

impl<'a> Response<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The lease of what was read: its id, its life, whether it can be prolonged.
    pub(super) fn lease(&self) -> Option<(&str, Duration, bool)> {
        let life = Duration::from_secs(self.lease_duration);
        (!self.lease_id.is_empty()).then_some((&self.lease_id, life, self.renewable))
    }

    /// When what was made ends, in seconds since 1970, where the answer says so: a certificate's.
    pub(super) fn expiration(&self) -> Option<u64> {
        serde_json::from_str(self.members()?.get("expiration")?.get()).ok()
    }

    /// The store's version of what was read; `None` where it keeps none.
    pub(super) fn version(&self) -> Option<String> {
        let metadata = self.kv_metadata()?;
        let time = metadata.created_time.chars();
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-:.+".contains(*c);
        let time: String = time.filter(plain).take(40).collect();
        Some(format!("{}@{time}", metadata.version))
    }

    /// Whether this is a version that was deleted or destroyed, or something else that isn't there.
    pub(super) fn absence(&self) -> Absence {
        match self.kv_metadata() {
            Some(metadata) if metadata.destroyed => Absence::Destroyed,
            Some(_) => Absence::Deleted,
            None if self.warnings.is_some_and(|said| said.get().contains("versioned K/V")) => {
                Absence::NoDataSegment
            }
            None => Absence::Missing,
        }
    }

    /// Whether a KV version 2 engine answers with a version that has no data any more.
    pub(super) fn is_absent(&self) -> bool {
        let inner = self.members().and_then(|members| members.get("data"));
        inner.is_some_and(|inner| inner.get() == "null") && self.kv_metadata().is_some()
    }

    /// The value that an object asks for.
    pub(super) fn pick(&self, pick: &Pick) -> Result<SecretBytes, PickError> {
        let Some(data) = self.data else { return Err(PickError::NoData) };
        let Some(key) = &pick.key else { return Ok(self.whole(data)) };
        let outer = self.members().ok_or(PickError::NoSuchKey)?;
        let inner = outer.get("data").and_then(|inner| parse_map(inner));
        let map = inner.as_ref().unwrap_or(outer);
        let value = map.get(key.as_str()).ok_or(PickError::NoSuchKey)?;
        decode(plain(value), pick.encoding)
    }

    fn kv_metadata(&self) -> Option<KvMetadata> {
        let members = self.members()?;
        members.get("data")?;
        serde_json::from_str(members.get("metadata")?.get()).ok()
    }

    fn members(&self) -> Option<&Map<'a>> {
        self.members.get_or_init(|| self.data.and_then(parse_map)).as_ref()
    }

    /// The whole response with the fields that Vault's clients write. The id of the request is left
    /// empty: it is another one each time, and would make every refresh a rotation.
    fn whole(&self, data: &RawValue) -> SecretBytes {
        let lease_id = serde_json::Value::from(self.lease_id.as_ref()).to_string();
        let warnings = self.warnings.map_or("null", RawValue::get);
        let head = format!(
            r#"{{"request_id":"","lease_id":{lease_id},"lease_duration":{},"renewable":{},"data":"#,
            self.lease_duration, self.renewable
        );
        let parts = [&head, data.get(), r#","warnings":"#, warnings, "}"];
        let mut whole = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part.as_bytes()));
        SecretBytes::new(whole)
    }
}

fn parse_map(raw: &RawValue) -> Option<Map<'_>> {
    serde_json::from_str(raw.get()).ok()
}

/// A string without its quotes; anything else as the JSON that it is.
fn plain(value: &RawValue) -> SecretBytes {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => SecretString::new(text).into(),
        Err(_) => SecretBytes::new(value.get().as_bytes().to_vec()),
    }
}

fn decode(value: SecretBytes, encoding: Encoding) -> Result<SecretBytes, PickError> {
    let decoded = match encoding {
        Encoding::Utf8 => return Ok(value),
        Encoding::Base64 => base64(value.expose()),
        Encoding::Hex => hex(value.expose()),
    };
    decoded.ok_or(PickError::BadEncoding)
}

/// Line breaks between are fine, as in Go's decoder.
fn base64(text: &[u8]) -> Option<SecretBytes> {
    let mut joined = Zeroizing::new(Vec::with_capacity(text.len()));
    joined.extend(text.iter().filter(|byte| !b"\r\n".contains(byte)));
    let mut decoded = Zeroizing::new(vec![0; joined.len() / 4 * 3 + 3]);
    let length = STANDARD.decode_slice(joined.as_slice(), &mut decoded).ok()?;
    decoded.truncate(length);
    Some(SecretBytes::new(std::mem::take(&mut *decoded)))
}

fn hex(text: &[u8]) -> Option<SecretBytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    let (pairs, rest) = text.as_chunks::<2>();
    for [high, low] in pairs {
        decoded.push(digit(*high)? << 4 | digit(*low)?);
    }
    rest.is_empty().then(|| SecretBytes::new(std::mem::take(&mut *decoded)))
}

#[cfg(test)]
mod tests;
