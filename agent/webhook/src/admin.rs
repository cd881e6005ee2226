//! The socket that exec probes ask: `sotto-webhook probe`.
//!
//! Its name is in the abstract namespace, so that it needs neither a port nor a writable directory. Only this
//! uid and root are answered. Whoever connects is told `yes`, or `no: ` with a reason, and nothing else.

use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;
use sotto_runtime::drain::Drain;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use crate::certificate::Certificate;

/// The name of the socket where no other is given.
pub const DEFAULT_NAME: &str = "sotto-webhook";
/// How long one question may take, answer included.
const DEADLINE: Duration = Duration::from_secs(3);
/// After an error: out of file descriptors, for instance; not a busy loop.
const PAUSE: Duration = Duration::from_millis(10);
const MAX_ANSWER_BYTES: u64 = 256;
const YES: &str = "yes";

/// Whether calls should come here.
#[derive(Debug, Clone)]
pub struct Readiness {
    certificate: Arc<Certificate>,
    leaving: Arc<AtomicBool>,
}

impl Readiness {
    /// Ready while the certificate is valid.
    #[must_use]
    pub fn new(certificate: Arc<Certificate>) -> Self {
        Self { certificate, leaving: Arc::default() }
    }

    /// Not ready from now on: the endpoint is taken out before the server ends.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// Why calls should not come here.
    pub fn check(&self) -> Result<(), String> {
        if self.leaving.load(Ordering::Relaxed) {
            return Err("it is shutting down".to_owned());
        }
        self.certificate.check(SystemTime::now())
    }
}

/// The listening socket.
pub struct Admin(UnixListener);

impl Admin {
    /// Takes the name.
    ///
    /// # Errors
    /// Another process has it, or the name is too long.
    pub fn bind(name: &str) -> io::Result<Self> {
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self(UnixListener::from_std(listener)?))
    }

    /// Answers, one asker after the other, until `drain` begins.
    pub async fn run(self, readiness: Readiness, drain: Drain) {
        loop {
            let accepted = tokio::select! {
                accepted = self.0.accept() => accepted,
                () = drain.begun() => return,
            };
            let answered = match accepted {
                Ok((stream, _)) => answer_in_time(stream, &readiness).await,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a probe was not answered");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer_in_time(mut stream: UnixStream, readiness: &Readiness) -> io::Result<()> {
    let asker = stream.peer_cred()?.uid();
    if asker != 0 && asker != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "asked by another uid"));
    }
    let answer = readiness.check().map_or_else(|why| format!("no: {why}"), |()| YES.to_owned());
    tokio::time::timeout(DEADLINE, stream.write_all(answer.as_bytes()))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the asker does not read"))?
}

/// Asks a running webhook; blocks.
///
/// # Errors
/// Why the answer isn't yes.
pub fn probe(name: &str) -> Result<(), String> {
    match ask(name) {
        Ok(answer) if answer == YES => Ok(()),
        Ok(answer) => Err(answer.strip_prefix("no: ").unwrap_or("no answer").to_owned()),
        Err(error) => Err(format!("no webhook answers at @{name}: {error}")),
    }
}

fn ask(name: &str) -> io::Result<String> {
    let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
