use super::*;
use crate::driver::DriverCalls;
use sotto_handoff::link::{Answer, NoRequests};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Code, Frame, Release, Released};
use sotto_handoff::refusal::Refusal;
use sotto_handoff::socket::Listener;

use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

struct Releases;

impl Handler for Releases {
    async fn handle(&self, _: Body, _: Option<OwnedFd>) -> Result<Answer, Refusal> {
        Ok(Body::Released(Released {}).into())
    }
}

/// How often there was a link.
#[derive(Clone, Default)]
struct Links(Arc<AtomicUsize>);

impl LinkObserver for Links {
    fn linked(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn waits(&self, _: String) {}
}

impl Links {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Fixture {
    socket: PathBuf,
    drain: Drain,
    links: Links,
    _directory: TempDir,
}

fn fixture(uid: u32) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let drain = Drain::new();
    let links = Links::default();
    let (role, instance) = (Role::NodeAgent, "i-1".to_owned());
    let driver = Endpoint { socket: socket.clone(), uid, role, instance };
    let standby = watch::Sender::new(None);
    let link = DriverLink::new(
        driver,
        Releases,
        DriverCalls::channel().0,
        links.clone(),
        standby.subscribe(),
        Leave::default(),
        drain.clone(),
    );
    drain.spawn(link.run());
    Fixture { socket, drain, links, _directory: directory }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn accept(listener: &Listener) -> (String, Connection) {
    let connection = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let agreed = handshake::welcome(&connection, false).await.unwrap();
    assert_eq!(agreed.role, Role::NodeAgent);
    (agreed.instance, connection)
}

async fn asked(connection: Connection) {
    let (link, task) = Link::start(connection, Arc::new(NoRequests), 1);
    let task = tokio::spawn(task);
    let release = Body::Release(Release { volume_id: "csi-1".to_owned() });
    let answer = link.call(release, None, SOON).await.unwrap();
    assert!(matches!(answer.body, Body::Released(_)));
    task.abort();
}

#[tokio::test]
async fn a_driver_that_comes_late_and_comes_again_is_served_by_one_instance() {
    let fixture = fixture(own_uid());
    assert_eq!(fixture.links.count(), 0);
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let (first, connection) = accept(&listener).await;
    asked(connection).await;
    assert_eq!(fixture.links.count(), 1);
    drop(listener);
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let (second, connection) = accept(&listener).await;
    asked(connection).await;
    assert_eq!((first.as_str(), second.as_str()), ("i-1", "i-1"));
    assert_eq!(fixture.links.count(), 2);
    fixture.drain.finish(SOON).await.unwrap();
}

#[tokio::test]
async fn a_driver_of_another_uid_hears_nothing() {
    let fixture = fixture(own_uid() + 1);
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let connection = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert!(connection.receive().await.is_err(), "it said hello to a stranger");
    assert_eq!(fixture.links.count(), 0);
    fixture.drain.finish(SOON).await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_the_attempts_and_a_link_outlasts_it() {
    let waiting = fixture(own_uid());
    waiting.drain.finish(SOON).await.unwrap();
    let linked = fixture(own_uid());
    let listener = socket::listen(&linked.socket, 0o600, None).unwrap();
    let (_, connection) = accept(&listener).await;
    linked.drain.finish(SOON).await.unwrap();
    // Its end would be taken for the end of this process (see `outlast`): it is still answered.
    asked(connection).await;
}

#[tokio::test]
async fn one_that_is_refused_asks_again() {
    let fixture = fixture(own_uid());
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let accepted = async || tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    for _ in 0..2 {
        let connection = accepted().await;
        connection.receive().await.unwrap();
        let refusal = Refusal::new(Code::PermissionDenied, "another sidecar serves this pod");
        let body = Some(Body::Refused(refusal.into()));
        connection.send(&Frame { request: 0, answer: false, body }, None).await.unwrap();
    }
    assert_eq!(fixture.links.count(), 0);
    let (_, connection) = accept(&listener).await;
    asked(connection).await;
    fixture.drain.finish(SOON).await.unwrap();
}
