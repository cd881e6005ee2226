//! A session as bytes, for the next process of the same agent: the store's tokens with their lives.
//!
//! Invariant: the bytes are wiped memory from end to end; whoever keeps them keeps them like the tokens. Lives
//! go over as wall time, since an `Instant` means nothing to another process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use sotto_core::clock::{milliseconds, nearest_millisecond};
use tokio::time::Instant;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::login::Token;
use crate::session::TokenLife;

/// Of a token in JSON, beside its own text: more than its fixed part needs.
const FRAME_BYTES: usize = 512;

/// Tokens, and what they are good for: at no other store, and for no other login, are they shown.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    good_for: String,
    tokens: Vec<Carried>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Carried {
    token: String,
    index: Option<String>,
    ttl_ms: Option<u64>,
    since_ms: u64,
    renewable: bool,
    is_batch: bool,
}

/// The tokens, the current one last, and what they are good for.
pub(super) fn write<'a>(
    good_for: &str,
    tokens: impl Iterator<Item = &'a Token>,
) -> Zeroizing<Vec<u8>> {
    let tokens: Vec<Carried> = tokens.filter_map(carry).collect();
    let bytes: usize = tokens.iter().map(|one| one.token.len() + FRAME_BYTES).sum();
    let carried = Session { good_for: good_for.to_owned(), tokens };
    let bytes = bytes + good_for.len() + FRAME_BYTES;
    // Of its final size at once: nothing is left where it was smaller.
    let mut json = Zeroizing::new(Vec::with_capacity(bytes));
    if serde_json::to_writer(&mut *json, &carried).is_err() {
        json.zeroize();
    }
    json
}

/// The tokens, the current one last; `None`: these are no tokens, or good for something else.
pub(super) fn read(good_for: &str, bytes: &[u8]) -> Option<Vec<Token>> {
    let carried: Session = serde_json::from_slice(bytes).ok()?;
    if carried.good_for != good_for {
        return None;
    }
    carried.tokens.iter().map(token).collect::<Option<Vec<_>>>().filter(|tokens| !tokens.is_empty())
}

fn carry(token: &Token) -> Option<Carried> {
    let text = |header: &HeaderValue| header.to_str().ok().map(str::to_owned);
    let since = SystemTime::now().checked_sub(token.life.since.elapsed())?;
    Some(Carried {
        token: text(&token.header)?,
        index: token.index.as_ref().and_then(text),
        ttl_ms: token.life.ttl.map(milliseconds),
        since_ms: nearest_millisecond(since)?,
        renewable: token.life.renewable,
        is_batch: token.is_batch,
    })
}

fn token(carried: &Carried) -> Option<Token> {
    let mut header = HeaderValue::from_str(&carried.token).ok()?;
    header.set_sensitive(true);
    let index =
        carried.index.as_ref().map(|index| HeaderValue::from_str(index)).transpose().ok()?;
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(carried.since_ms))?;
    // A clock that was set back meanwhile: as old as it can't be, which only asks too early.
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    let life = TokenLife {
        ttl: carried.ttl_ms.map(Duration::from_millis),
        since: Instant::now().checked_sub(age)?,
        renewable: carried.renewable,
    };
    Some(Token { header, index, life, is_batch: carried.is_batch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(age: Duration) -> TokenLife {
        let since = Instant::now().checked_sub(age).unwrap();
        TokenLife { ttl: Some(Duration::from_secs(600)), since, renewable: true }
    }

    #[test]
    fn tokens_come_back_with_their_lives() {
        let header = HeaderValue::from_static("s.token");
        let index = Some(HeaderValue::from_static("idx"));
        let one = Token { header, index, life: life(Duration::from_secs(100)), is_batch: false };
        let written = write("main at https://bao.example", [&one].into_iter());
        assert!(read("main at https://evil.example", &written).is_none(), "good for another store");
        let back = read("main at https://bao.example", &written).unwrap();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].header, "s.token");
        assert!(back[0].header.is_sensitive() && !back[0].is_batch);
        assert_eq!(back[0].index.as_ref().unwrap(), "idx");
        let age = back[0].life.since.elapsed();
        assert!(age >= Duration::from_secs(99) && age < Duration::from_secs(110), "{age:?}");
        assert_eq!(back[0].life.ttl, one.life.ttl);
    }

    #[test]
    fn what_is_no_session_is_refused() {
        for bytes in [&b""[..], b"[]", b"{}", b"[{\"token\":\"a\\nb\"}]"] {
            assert!(read("main", bytes).is_none(), "{bytes:?}");
        }
    }
}
