//! One request: recorded, met by a fault if one is planned, answered.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::faults::Effect;
use super::reply;
use super::route::{self, Ask};
use super::state::{Inner, Operation, Recorded};
use crate::https::{Answer, Call, Service};
use crate::issuer;

/// Requests that are remembered; a test that makes more looks at the counters of its own.
const RECORDED: usize = 100_000;

/// What the connections share.
#[derive(Default)]
pub(super) struct State(Mutex<Inner>);

impl State {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, ask: &Ask<'_>, call: &Call, status: u16) {
        let mut inner = self.lock();
        if inner.requests.len() == RECORDED {
            return;
        }
        inner.requests.push(Recorded {
            operation: ask.operation(),
            method: call.method.to_string(),
            path: ask.path.to_owned(),
            namespace: call.header("x-vault-namespace").map(str::to_owned),
            status,
            pod_token: pod_token(ask),
            peer: Arc::clone(&call.peer),
        });
    }
}

fn pod_token(ask: &Ask<'_>) -> Option<String> {
    if ask.operation() != Operation::Login {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(ask.body).ok()?;
    issuer::token_id(body["jwt"].as_str()?)
}

impl Service for State {
    async fn answer(&self, call: Call) -> io::Result<Answer> {
        let Some(path) = call.path.strip_prefix("/v1/") else {
            return Ok(reply::not_found());
        };
        let bearer = call.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let ask = Ask {
            method: &call.method,
            path,
            query: &call.query,
            token: call.header("x-vault-token").or(bearer),
            body: &call.body,
        };
        let fault = self.lock().faults.take(ask.operation());
        let effect = fault.map(|fault| fault.effect(path));
        let answer = match effect {
            Some(Effect::Answer(answer)) => answer,
            Some(Effect::Cut) => {
                self.record(&ask, &call, 0);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Effect::Hang) => {
                self.record(&ask, &call, 0);
                let never: Infallible = std::future::pending().await;
                match never {}
            }
            Some(Effect::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                route::answer(&mut self.lock(), &ask)
            }
            None => route::answer(&mut self.lock(), &ask),
        };
        self.record(&ask, &call, answer.status);
        Ok(answer)
    }
}
