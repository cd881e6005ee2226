//! Versions and roles, agreed before the first request.
//!
//! The agent says which versions it speaks, the driver picks the newest that both do. A version is one
//! for the meaning of frames; fields that are only added don't need a new one.

use std::time::Duration;

use crate::message::{Code, Frame, Hello, Refused, Role, Welcome, frame::Body};
use crate::packet::{Connection, PacketError};
use crate::refusal::Refusal;

/// Oldest version that this side speaks.
pub const MIN_VERSION: u32 = 1;
/// Newest version that this side speaks.
pub const MAX_VERSION: u32 = 1;

/// How long the other side may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest text that a peer may name itself with.
const MAX_NAME_BYTES: usize = 128;

/// What both sides agreed upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The version both speak.
    pub version: u32,
    /// The peer's role.
    pub role: Role,
    /// The peer's instance: random, one a supervisor; empty for the driver.
    pub instance: String,
    /// The peer's software and version, for the log.
    pub software: String,
    /// The driver has another agent: it will say when all volumes are prepared.
    pub standby: bool,
}

/// A handshake that failed; the connection must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The other side said something else.
    #[error("the other side did not begin with a handshake")]
    Unexpected,
    /// No common version.
    #[error(
        "the other side speaks versions {min} to {max}, this one {MIN_VERSION} to {MAX_VERSION}: \
         upgrade the older of the two"
    )]
    NoCommonVersion {
        /// Its oldest.
        min: u32,
        /// Its newest.
        max: u32,
    },
    /// The other side refused.
    #[error("the other side refused: {0}")]
    Refused(#[from] Refusal),
    /// Nothing came in time.
    #[error("the other side said nothing for 5 s")]
    Deadline,
}

/// The agent's side.
///
/// # Errors
/// Why there is no agreement.
pub async fn hello(
    connection: &Connection,
    role: Role,
    instance: &str,
) -> Result<Agreed, HandshakeError> {
    within_deadline(async {
        let hello = Hello {
            min_version: MIN_VERSION,
            max_version: MAX_VERSION,
            role: role.into(),
            instance: instance.to_owned(),
            software: software(),
        };
        connection.send(&frame(Body::Hello(hello)), None).await?;
        match connection.receive().await?.frame.body {
            Some(Body::Welcome(welcome)) => {
                let version = welcome.version;
                if !(MIN_VERSION..=MAX_VERSION).contains(&version) {
                    return Err(HandshakeError::NoCommonVersion { min: version, max: version });
                }
                let (role, standby) = (welcome.role(), welcome.standby);
                let software = bounded(welcome.software);
                Ok(Agreed { version, role, instance: String::new(), software, standby })
            }
            Some(Body::Refused(refused)) => Err(Refusal::from(refused).into()),
            _ => Err(HandshakeError::Unexpected),
        }
    })
    .await
}

/// The driver's side. `standby`: another agent serves volumes.
///
/// # Errors
/// Why there is no agreement; the agent was told.
pub async fn welcome(connection: &Connection, standby: bool) -> Result<Agreed, HandshakeError> {
    asked(connection).await?.welcome(standby).await
}

/// A peer that asks to be welcome.
pub struct Asking<'a> {
    connection: &'a Connection,
    agreed: Agreed,
}

/// The driver's side, in two steps: reads who asks.
///
/// # Errors
/// Why there can be no agreement; the agent was told.
pub async fn asked(connection: &Connection) -> Result<Asking<'_>, HandshakeError> {
    within_deadline(async {
        let Some(Body::Hello(hello)) = connection.receive().await?.frame.body else {
            return Err(HandshakeError::Unexpected);
        };
        let (min, max) = (hello.min_version, hello.max_version);
        let version = max.min(MAX_VERSION);
        if version < min.max(MIN_VERSION) {
            let error = HandshakeError::NoCommonVersion { min, max };
            let message = format!(
                "the driver speaks versions {MIN_VERSION} to {MAX_VERSION}, not {min} to {max}"
            );
            let refused = Refused { code: Code::FailedPrecondition.into(), message };
            connection.send(&frame(Body::Refused(refused)), None).await?;
            return Err(error);
        }
        let role = hello.role();
        let (instance, software) = (bounded(hello.instance), bounded(hello.software));
        let agreed = Agreed { version, role, instance, software, standby: false };
        Ok(Asking { connection, agreed })
    })
    .await
}

impl Asking<'_> {
    /// The role that it claims.
    #[must_use]
    pub fn role(&self) -> Role {
        self.agreed.role
    }

    /// What it calls itself.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.agreed.instance
    }

    /// Agrees. `standby`: another agent serves volumes.
    ///
    /// # Errors
    /// The connection's.
    pub async fn welcome(self, standby: bool) -> Result<Agreed, HandshakeError> {
        let (role, software) = (Role::Driver.into(), software());
        let answer = Welcome { version: self.agreed.version, role, software, standby };
        within_deadline(async {
            Ok(self.connection.send(&frame(Body::Welcome(answer)), None).await?)
        })
        .await?;
        Ok(Agreed { standby, ..self.agreed })
    }

    /// Says no.
    ///
    /// # Errors
    /// The connection's.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), HandshakeError> {
        let refused = Body::Refused(refusal.into());
        within_deadline(async { Ok(self.connection.send(&frame(refused), None).await?) }).await
    }
}

async fn within_deadline<T>(
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_DEADLINE, work).await.map_err(|_| HandshakeError::Deadline)?
}

fn frame(body: Body) -> Frame {
    Frame { request: 0, answer: false, body: Some(body) }
}

fn software() -> String {
    concat!("sotto/", env!("CARGO_PKG_VERSION")).to_owned()
}

/// A peer's name for itself, fit for a log line.
fn bounded(text: String) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(MAX_NAME_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn welcomed_with(min: u32, max: u32) -> (Result<Agreed, HandshakeError>, Option<Body>) {
        let (driver, agent) = Connection::pair().unwrap();
        let hello = Hello {
            min_version: min,
            max_version: max,
            role: Role::NodeAgent.into(),
            instance: "i\n1".to_owned(),
            software: "later/9".to_owned(),
        };
        agent.send(&frame(Body::Hello(hello)), None).await.unwrap();
        let agreed = welcome(&driver, false).await;
        (agreed, agent.receive().await.unwrap().frame.body)
    }

    #[tokio::test]
    async fn both_sides_agree() {
        let (driver, agent) = Connection::pair().unwrap();
        let (one, two) =
            tokio::join!(welcome(&driver, true), hello(&agent, Role::NodeAgent, "i-1"));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.version, one.role, one.instance.as_str()), (1, Role::NodeAgent, "i-1"));
        assert_eq!((two.version, two.role, two.standby), (1, Role::Driver, true));
    }

    #[tokio::test]
    async fn a_newer_agent_that_still_speaks_our_version_is_welcome() {
        let (agreed, answer) = welcomed_with(1, MAX_VERSION + 1).await;
        let agreed = agreed.unwrap();
        assert_eq!(agreed.version, MAX_VERSION);
        assert_eq!(agreed.instance, "i1", "control characters never reach a log");
        assert!(matches!(answer, Some(Body::Welcome(_))));
    }

    #[tokio::test]
    async fn an_agent_too_new_is_told_so() {
        let (agreed, answer) = welcomed_with(MAX_VERSION + 1, MAX_VERSION + 2).await;
        assert!(matches!(agreed, Err(HandshakeError::NoCommonVersion { .. })));
        let Some(Body::Refused(refused)) = answer else { panic!("it was not told") };
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }

    #[tokio::test]
    async fn a_request_before_the_handshake_is_refused() {
        let (driver, agent) = Connection::pair().unwrap();
        let release = crate::message::Release { volume_id: "v".to_owned() };
        agent.send(&frame(Body::Release(release)), None).await.unwrap();
        assert!(matches!(welcome(&driver, false).await, Err(HandshakeError::Unexpected)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_left() {
        let (driver, _agent) = Connection::pair().unwrap();
        assert!(matches!(welcome(&driver, false).await, Err(HandshakeError::Deadline)));
    }
}
