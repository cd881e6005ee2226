//! One watch: a stream of JSON lines that follows the history, and the ways in which it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::request::Recorded;
use super::respond::status_object;
use super::state::{Inner, State};

/// How long a watch lasts when the client doesn't say.
const LONGEST_WATCH: Duration = Duration::from_secs(300);

/// One client's place in the history.
struct Watcher {
    state: Arc<State>,
    request: Recorded,
    version: u64,
    bookmarks: u64,
    cuts: u64,
    ends: u64,
    expirations: u64,
    until: Instant,
    over: bool,
}

enum Step {
    Lines(Vec<Value>),
    Wait,
    End,
    Cut,
}

/// The lines of a watch, for as long as it lasts.
pub(super) fn stream(
    state: Arc<State>,
    request: Recorded,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    unfold(Watcher::new(state, request), |mut watcher| async move {
        let mut ticks = watcher.state.ticks();
        while !watcher.over {
            match watcher.state.read(|inner| watcher.step(inner)) {
                Step::Lines(lines) => {
                    watcher.passed(&lines);
                    return Some((Ok(Frame::data(joined(&lines))), watcher));
                }
                Step::End => watcher.over = true,
                Step::Cut => {
                    watcher.over = true;
                    return Some((Err(io::ErrorKind::ConnectionReset.into()), watcher));
                }
                Step::Wait => {
                    let tick = tokio::time::timeout_at(watcher.until, ticks.changed()).await;
                    watcher.over = tick.is_err();
                }
            }
        }
        None
    })
}

impl Watcher {
    fn new(state: Arc<State>, request: Recorded) -> Self {
        let number = |key| request.parameter(key).and_then(|text| text.parse::<u64>().ok());
        let lasts = number("timeoutSeconds").map_or(LONGEST_WATCH, Duration::from_secs);
        let from = number("resourceVersion");
        let (version, bookmarks, cuts, ends, expirations) = state.change(|inner| {
            inner.watchers += 1;
            let from = from.unwrap_or_else(|| inner.objects.version());
            (from, inner.bookmarks, inner.cuts, inner.ends, inner.expirations)
        });
        let until = Instant::now() + lasts.min(LONGEST_WATCH);
        Self { state, request, version, bookmarks, cuts, ends, expirations, until, over: false }
    }

    fn step(&self, inner: &Inner) -> Step {
        if inner.cuts > self.cuts {
            return Step::Cut;
        }
        if inner.objects.is_too_old(self.version) || inner.expirations > self.expirations {
            let gone = status_object(410, "Expired", "too old resource version");
            return Step::Lines(vec![json!({"type": "ERROR", "object": gone})]);
        }
        let changes =
            inner.objects.since(self.version, &self.request.resource, &self.request.namespace);
        let mut lines: Vec<Value> = changes
            .into_iter()
            .map(|change| json!({"type": change.kind, "object": change.object}))
            .collect();
        if inner.bookmarks > self.bookmarks && self.wants_bookmarks() {
            lines.push(self.bookmark(inner.objects.version()));
        }
        match lines.is_empty() {
            false => Step::Lines(lines),
            // What is left to say comes before an end in order.
            true if inner.ends > self.ends => Step::End,
            true => Step::Wait,
        }
    }

    /// Moves on past what was just sent; an ERROR is the last line.
    fn passed(&mut self, lines: &[Value]) {
        self.bookmarks = self.state.read(|inner| inner.bookmarks);
        for line in lines {
            self.over |= line["type"] == "ERROR";
            let version = line["object"]["metadata"]["resourceVersion"].as_str();
            if let Some(version) = version.and_then(|text| text.parse().ok()) {
                self.version = version;
            }
        }
    }

    fn wants_bookmarks(&self) -> bool {
        self.request.parameter("allowWatchBookmarks") == Some("true")
    }

    fn bookmark(&self, version: u64) -> Value {
        json!({"type": "BOOKMARK", "object": {
            "apiVersion": self.request.api_version(), "kind": "Bookmarked",
            "metadata": {"resourceVersion": version.to_string()}}})
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.state.change(|inner| inner.watchers -= 1);
    }
}

fn joined(lines: &[Value]) -> Bytes {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into()
}
