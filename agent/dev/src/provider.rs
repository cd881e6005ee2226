//! A provider of the Secrets Store CSI driver on a socket of its own: it speaks `v1alpha1.CSIDriverProvider`
//! well and badly, and notes what it was asked.
//!
//! Invariant: it shares nothing with the agents' client but the generated messages. Tests start it, tell it
//! how to behave, and read what it saw.

mod behaviour;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::Shutdown;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

pub use behaviour::{Behaviour, ProviderFile};

/// Connections that can be cut later; the oldest are forgotten.
const MOST_CONNECTIONS: usize = 16;

/// One provider; it ends, and its socket goes, when it is dropped.
pub struct DevProvider {
    socket: PathBuf,
    state: Arc<State>,
    server: JoinHandle<()>,
}

/// A Mount as it arrived.
#[derive(Clone)]
pub struct SeenMount {
    /// `:authority` of the request.
    pub authority: String,
    /// How long the caller waits.
    pub patience: Option<Duration>,
    /// `attributes`, read as every provider reads them.
    pub attributes: BTreeMap<String, String>,
    /// `secrets`, as JSON.
    pub secrets: Value,
    /// `target_path`.
    pub target_path: String,
    /// `permission`, as it stands.
    pub permission: String,
    /// `current_object_version`: ids with their versions.
    pub versions: BTreeMap<String, String>,
}

impl SeenMount {
    /// `csi.storage.k8s.io/serviceAccount.tokens`; null if there are none.
    #[must_use]
    pub fn tokens(&self) -> Value {
        let tokens = self.attributes.get("csi.storage.k8s.io/serviceAccount.tokens");
        tokens.and_then(|tokens| serde_json::from_str(tokens).ok()).unwrap_or(Value::Null)
    }
}

struct State {
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<SeenMount>>,
    connections: Mutex<VecDeque<OwnedFd>>,
}

impl DevProvider {
    /// Listens at `<directory>/<name>.sock`, which must not exist. Within a tokio runtime.
    ///
    /// # Errors
    /// No socket could be made there.
    pub fn start(directory: &Path, name: &str, behaviour: Behaviour) -> io::Result<Self> {
        let socket = directory.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket)?;
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            seen: Mutex::default(),
            connections: Mutex::default(),
        });
        let server = tokio::spawn(serve::serve(listener, Arc::clone(&state)));
        Ok(Self { socket, state, server })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Behaves like this from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.state.behaviour) = behaviour;
    }

    /// Every Mount that arrived, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<SeenMount> {
        lock(&self.state.seen).clone()
    }
}

impl Drop for DevProvider {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl State {
    fn behaviour(&self) -> Behaviour {
        lock(&self.behaviour).clone()
    }

    fn remember(&self, connection: OwnedFd) {
        let mut connections = lock(&self.connections);
        connections.push_back(connection);
        while connections.len() > MOST_CONNECTIONS {
            connections.pop_front();
        }
    }

    fn cut_connections(&self) {
        for connection in lock(&self.connections).drain(..) {
            let _ = rustix::net::shutdown(&connection, Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
