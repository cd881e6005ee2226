//! A Kubernetes API server's part, for tests: HTTPS, list and watch with resource versions, bookmarks,
//! TokenReview, create, patch, apply; and everything that goes wrong with a real one.
//!
//! Invariant: loopback only, a CA of its own, a bearer token of its own; whoever comes without is
//! answered 401. Tests create it, drive it through [`FakeApiServer`], and read what was asked of it.
//!
//! It checks no schema and runs no admission. It is a fake of the protocol, not of the cluster.

mod faults;
mod objects;
mod permissions;
mod request;
mod respond;
mod serve;
mod state;
mod tls;
mod watch;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::Fault;
pub use request::Recorded;
pub use state::TokenReviewRequest;

use state::State;

use crate::port::Port;

/// How long the inspection calls that wait do so before they give up.
const WAIT_DEADLINE: Duration = Duration::from_secs(10);

/// One API server; it ends when it is dropped.
pub struct FakeApiServer {
    port: Port,
    authority: tls::Authority,
    state: Arc<State>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl FakeApiServer {
    /// Starts it on a port of loopback.
    ///
    /// # Errors
    /// No port could be had, or no certificate made.
    pub async fn start() -> io::Result<Self> {
        let authority = tls::Authority::new().map_err(io::Error::other)?;
        let port = Port::reserve()?;
        let listener = port.listen()?;
        let server = Self {
            port,
            authority,
            state: Arc::new(State::new(random_token())),
            listener: Mutex::new(None),
        };
        server.listen_on(listener);
        Ok(server)
    }

    /// A server that isn't there yet: its address and kubeconfig are known, nobody listens.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn absent() -> io::Result<Self> {
        let server = Self::start().await?;
        server.go_dark().await;
        Ok(server)
    }

    /// Its address, `https://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// The certificate of its CA, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// The bearer token that it accepts.
    #[must_use]
    pub fn bearer(&self) -> &str {
        &self.state.bearer
    }

    /// A kubeconfig that leads to it.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster":
                {"server": self.url(), "certificate-authority-data": ca}}],
            "users": [{"name": "fake", "user": {"token": self.bearer()}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        })
        .to_string()
    }

    /// Creates or replaces an object, as somebody else would by `kubectl apply`; watchers are told.
    /// `resource` is the plural, e.g. `secretproviderclasses`; returns the new resource version.
    pub fn put(&self, resource: &str, object: Value) -> u64 {
        self.state.change(|inner| inner.objects.put(resource, object))
    }

    /// Deletes an object; watchers are told.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.state.change(|inner| inner.objects.delete(resource, namespace, name));
    }

    /// Deletes an object and forgets the change: watchers aren't told and no later watch is.
    pub fn delete_unseen(&self, resource: &str, namespace: &str, name: &str) {
        self.state.quietly(|inner| inner.objects.delete_unseen(resource, namespace, name));
    }

    /// The objects of a resource, by namespace and name.
    #[must_use]
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.state.read(|inner| inner.objects.list(resource, None))
    }

    /// Forgets every change up to now, as etcd's compaction does: a watch from before is answered by
    /// an ERROR event 410.
    pub fn compact(&self) {
        self.state.change(|inner| inner.objects.compact());
    }

    /// Sends a bookmark with the present version to every watcher that allows them.
    pub fn bookmark(&self) {
        self.state.change(|inner| inner.bookmarks += 1);
    }

    /// A bookmark, and then the end of the watch in order.
    pub fn bookmark_and_end_watches(&self) {
        self.state.change(|inner| {
            inner.bookmarks += 1;
            inner.ends += 1;
        });
    }

    /// Cuts every watch in the middle of its answer.
    pub fn cut_watches(&self) {
        self.state.change(|inner| inner.cuts += 1);
    }

    /// Ends every watch in order, as the server does when its time is over.
    pub fn end_watches(&self) {
        self.state.change(|inner| inner.ends += 1);
    }

    /// Sends ERROR 410 to every watcher in mid-stream.
    pub fn expire_watches(&self) {
        self.state.change(|inner| inner.expirations += 1);
    }

    /// Watches that are open now.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.state.read(|inner| inner.watchers)
    }

    /// The next `times` requests of this verb and resource (`*`: any) meet the fault.
    pub fn fail(&self, verb: &str, resource: &str, fault: Fault, times: usize) {
        self.state.quietly(|inner| inner.faults.add(verb, resource, fault, times));
    }

    /// Takes every fault back.
    pub fn heal(&self) {
        self.state.quietly(|inner| inner.faults.clear());
    }

    /// Nobody listens any more, and every connection is cut: an outage.
    pub async fn go_dark(&self) {
        let task = self.slot().take();
        if let Some(task) = task {
            task.abort();
            // It ends by being aborted; only then is the port free.
            drop(task.await);
        }
    }

    /// Listens again on the same port, with what it knew.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn come_back(&self) -> io::Result<()> {
        self.listen_on(self.port.listen()?);
        Ok(())
    }

    /// Answers TokenReviews: the function gives the `status`.
    pub fn answer_token_reviews(
        &self,
        answer: impl Fn(&TokenReviewRequest<'_>) -> Value + Send + Sync + 'static,
    ) {
        self.state.quietly(|inner| inner.token_review = Some(Arc::new(answer)));
    }

    /// From now on only what these RBAC rules allow (`rules:` of a ClusterRole) is answered; the rest
    /// gets 403.
    pub fn allow_only(&self, rules: &Value) {
        let rules = permissions::Rules::parse(rules);
        self.state.quietly(|inner| inner.permissions = Some(rules));
    }

    /// Every request so far, in order; those that met a fault too.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.read(|inner| inner.requests.clone())
    }

    /// Requests of one verb and resource so far.
    #[must_use]
    pub fn requests_of(&self, verb: &str, resource: &str) -> Vec<Recorded> {
        let mut requests = self.requests();
        requests.retain(|one| one.verb == verb && one.resource == resource);
        requests
    }

    /// Waits until the server's state satisfies the condition.
    ///
    /// # Panics
    /// It did not within ten seconds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut ticks = self.state.ticks();
        let wait = async {
            while !condition(self) {
                if ticks.changed().await.is_err() {
                    return;
                }
            }
        };
        let seen = tokio::time::timeout(WAIT_DEADLINE, wait).await;
        assert!(seen.is_ok(), "the API server did not see {what}; requests: {:?}", self.requests());
    }

    fn listen_on(&self, listener: TcpListener) {
        let acceptor = self.authority.acceptor();
        let task = tokio::spawn(serve::accept(listener, acceptor, Arc::clone(&self.state)));
        if let Some(old) = self.slot().replace(task) {
            old.abort();
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeApiServer {
    fn drop(&mut self) {
        if let Some(task) = self.slot().take() {
            task.abort();
        }
    }
}

/// Enough for loopback: other users of the machine can't guess it.
fn random_token() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("fake-{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2))
}
