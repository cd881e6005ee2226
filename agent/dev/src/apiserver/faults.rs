//! What can go wrong, and for which requests.

use std::time::Duration;

use super::request::Recorded;

/// What a request meets instead of its answer, or before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status code, with a `Status` object as its body.
    Status(u16),
    /// 429 or 503 as API priority and fairness answers: `Retry-After` and plain text.
    RetryAfter {
        /// The status code.
        code: u16,
        /// Seconds.
        seconds: u64,
    },
    /// The answer, after this time.
    Slow(Duration),
    /// No answer, ever.
    Hang,
    /// The connection is closed without an answer.
    Disconnect,
    /// 200 with a body that isn't JSON.
    Garbage,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Planned>);

#[derive(Debug)]
struct Planned {
    verb: String,
    resource: String,
    fault: Fault,
    left: usize,
}

impl Faults {
    pub(super) fn add(&mut self, verb: &str, resource: &str, fault: Fault, times: usize) {
        let (verb, resource) = (verb.to_owned(), resource.to_owned());
        self.0.push(Planned { verb, resource, fault, left: times });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that this request meets; it is used up.
    pub(super) fn take(&mut self, request: &Recorded) -> Option<Fault> {
        let fits = |wanted: &str, given: &str| wanted == "*" || wanted == given;
        let planned = self.0.iter_mut().find(|one| {
            one.left > 0 && fits(&one.verb, request.verb) && fits(&one.resource, &request.resource)
        })?;
        planned.left = planned.left.saturating_sub(1);
        Some(planned.fault.clone())
    }
}
