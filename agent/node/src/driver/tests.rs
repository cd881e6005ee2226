use super::*;
use sotto_handoff::link::{Answer, NoRequests};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Release, Released};
use sotto_handoff::refusal::Refusal;
use sotto_handoff::socket::Listener;
use sotto_volume::driver::DriverCalls;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

struct Releases;

impl Handler for Releases {
    async fn handle(&self, _: Body, _: Option<OwnedFd>) -> Result<Answer, Refusal> {
        Ok(Body::Released(Released {}).into())
    }
}

struct Fixture {
    socket: PathBuf,
    drain: Drain,
    readiness: Readiness,
    _directory: TempDir,
}

fn fixture(uid: u32) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let drain = Drain::new();
    let readiness = Readiness::new(drain.clone());
    let driver = Driver { socket: socket.clone(), uid, name: "csi.sotto.dev".to_owned() };
    let standby = watch::Sender::new(None);
    let link = DriverLink::new(
        (driver, "one-supervisor".to_owned()),
        Releases,
        DriverCalls::channel().0,
        readiness.clone(),
        standby.subscribe(),
        Leave::default(),
        drain.clone(),
    );
    drain.spawn(link.run());
    Fixture { socket, drain, readiness, _directory: directory }
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
    assert!(fixture.readiness.check().is_err());
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let (first, connection) = accept(&listener).await;
    asked(connection).await;
    assert_eq!(fixture.readiness.check(), Ok(()));
    drop(listener);
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let (second, connection) = accept(&listener).await;
    asked(connection).await;
    assert_eq!(first, second);
    assert_eq!(fixture.readiness.check(), Ok(()));
    fixture.drain.finish(SOON).await.unwrap();
}

#[tokio::test]
async fn a_driver_of_another_uid_hears_nothing() {
    let fixture = fixture(own_uid() + 1);
    let listener = socket::listen(&fixture.socket, 0o600, None).unwrap();
    let connection = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert!(connection.receive().await.is_err(), "it said hello to a stranger");
    assert!(fixture.readiness.check().is_err());
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
