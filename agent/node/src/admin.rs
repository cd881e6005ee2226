//! The socket that exec probes ask: `sotto-node probe`; and people: `sotto-node refresh`.
//!
//! Its name is in the abstract namespace, so that it needs no writable directory and is seen only within
//! the pod's own network namespace. Only this uid and root are answered. A question is one line: `ready?` or
//! `live?`, with the answer `yes`, or `no: ` with a reason; `refresh <namespace>/<pod>`, with the answers of
//! [`refresh()`]. All it can be told is to ask the stores again, and nothing that it says is a secret.

mod refresh;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::time::Duration;

use rustix::process::geteuid;
use sotto_runtime::drain::Drain;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::readiness::Readiness;
pub use refresh::{Answers, Refresher, refresh};

/// The name of the socket where no other is given.
pub const DEFAULT_NAME: &str = "sotto-node";
/// Askers that are answered at once; the next wait.
const MOST_ASKERS: usize = 32;
/// How long one question may take, the answer of a probe included.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longest question, and longest answer of a probe, in bytes.
const MAX_LINE_BYTES: u64 = 512;
const READY: &str = "ready?";
const LIVE: &str = "live?";
const YES: &str = "yes";

/// The listening socket.
pub struct Admin(UnixListener);

impl Admin {
    /// Takes the name.
    ///
    /// # Errors
    /// Another process has it, or the name is too long.
    pub fn bind(name: &str) -> io::Result<Self> {
        let listener = StdListener::bind_addr(&address(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    /// Answers until `drain` begins.
    pub async fn run(self, readiness: Readiness, refresher: Refresher, drain: Drain) {
        let mut askers = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.0.accept(), if askers.len() < MOST_ASKERS => accepted,
                Some(_) = askers.join_next() => continue,
                () = drain.begun() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (readiness, refresher) = (readiness.clone(), refresher.clone());
                    askers.spawn(async move {
                        if let Err(error) = answer(stream, &readiness, &refresher).await {
                            tracing::debug!(%error, "a question was not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "no question is taken");
                    // Out of file descriptors, for instance: not a busy loop.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    readiness: &Readiness,
    refresher: &Refresher,
) -> io::Result<()> {
    let asker = stream.peer_cred()?.uid();
    if asker != 0 && asker != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "asked by another uid"));
    }
    let (reader, mut writer) = stream.split();
    let mut question = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(MAX_LINE_BYTES));
    in_time(reader.read_line(&mut question)).await?;
    let answer = match question.trim_end() {
        READY => readiness.check().map_or_else(|why| format!("no: {why}"), |()| YES.to_owned()),
        LIVE => YES.to_owned(),
        question => match question.strip_prefix(refresh::QUESTION) {
            Some(pod) => refresher.answer(pod).await,
            None => "no: ask ready?, live? or refresh <namespace>/<pod>".to_owned(),
        },
    };
    in_time(writer.write_all(format!("{answer}\n").as_bytes())).await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the asker is too slow");
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| late())?
}

/// Asks a running agent; blocks.
///
/// # Errors
/// Why the answer isn't yes.
pub fn probe(name: &str, live: bool) -> Result<(), String> {
    let question = if live { LIVE } else { READY };
    match ask(name, question) {
        Ok(answer) if answer == YES => Ok(()),
        Ok(answer) => Err(answer.strip_prefix("no: ").unwrap_or("no answer").to_owned()),
        Err(error) => Err(format!("no agent answers at @{name}: {error}")),
    }
}

fn ask(name: &str, question: &str) -> io::Result<String> {
    let stream = asked(name, question, DEADLINE)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

fn asked(name: &str, question: &str, deadline: Duration) -> io::Result<StdStream> {
    let mut stream = StdStream::connect_addr(&address(name)?)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    Ok(stream)
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn probed(name: &'static str, live: bool) -> Result<(), String> {
        tokio::task::spawn_blocking(move || probe(name, live)).await.unwrap()
    }

    #[tokio::test]
    async fn a_probe_hears_whether_the_agent_is_ready() {
        let name = "sotto-node-test-ready";
        let drain = Drain::new();
        let readiness = Readiness::new(drain.clone());
        let refresher = Refresher::new(|_, _| Box::pin(async { Vec::new() }));
        let admin = Admin::bind(name).unwrap();
        drain.spawn(admin.run(readiness.clone(), refresher, drain.clone()));
        assert!(probed(name, false).await.unwrap_err().contains("driver"));
        assert_eq!(probed(name, true).await, Ok(()));
        readiness.linked();
        assert_eq!(probed(name, false).await, Ok(()));
        drain.finish(DEADLINE).await.unwrap();
        assert!(probed(name, true).await.is_err());
    }

    #[tokio::test]
    async fn no_agent_is_no() {
        let error = probed("sotto-node-test-nobody", false).await.unwrap_err();
        assert!(error.contains("sotto-node-test-nobody"));
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_an_error() {
        let _first = Admin::bind("sotto-node-test-taken").unwrap();
        assert!(Admin::bind("sotto-node-test-taken").is_err());
    }
}
