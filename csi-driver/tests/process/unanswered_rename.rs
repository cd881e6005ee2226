//! An agent that asks for a rotation and never answers the operations that make it.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sotto_handoff::handshake;
use sotto_handoff::link::{Answer, CallError, Handler, Link};
use sotto_handoff::message::{
    Acknowledged, Code, ObjectVersion, Prepared, Released, Role, Rotate, Serving, frame::Body,
};
use sotto_handoff::refusal::Refusal;
use sotto_handoff::socket::connect;

use crate::agent::Agent;
use crate::behaviour::Behaviour;
use crate::driver_process::DriverProcess;
use crate::machine::{Machine, PATIENCE, eventually};
use crate::mini_fuse::{self, Mute};

/// What the driver gives a helper.
const DEADLINE: Duration = Duration::from_secs(2);
/// A driver that is not held up answers within this.
const PROMPTLY: Duration = Duration::from_millis(1_500);

/// An agent that serves, and asks.
struct Asking {
    link: Link,
    served: Arc<Serves>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Serves {
    mute: Arc<Mute>,
    connections: Mutex<Vec<(OwnedFd, OwnedFd)>>,
}

impl Asking {
    async fn connected(machine: &Machine) -> Self {
        let connection = connect(&machine.run_dir().join("node.sock")).await.unwrap();
        handshake::hello(&connection, Role::NodeAgent, "asking").await.unwrap();
        let served = Arc::new(Serves::default());
        let (link, run) = Link::start(connection, Arc::clone(&served), 512);
        let task = tokio::spawn(async move {
            run.await;
        });
        Self { link, served, task }
    }

    /// No request is answered any more; `read`: but they are read.
    fn fall_silent(&self, read: bool) {
        if read {
            self.served.mute.is_on.store(true, Ordering::SeqCst);
        } else {
            // The other ends tell the threads to stop.
            self.served.connections.lock().unwrap().iter_mut().for_each(|(_, stop)| {
                *stop = std::fs::File::open("/dev/null").unwrap().into();
            });
        }
    }

    async fn rotate(&self) -> CallError {
        let request = Rotate { volume_id: "csi-1".to_owned(), generation: 2, ..Rotate::default() };
        self.link.call(Body::Rotate(request), None, PATIENCE).await.unwrap_err()
    }

    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
        self.served.connections.lock().unwrap().clear();
    }
}

impl Handler for Serves {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        let answer = match body {
            Body::Prepare(_) => {
                let object = ObjectVersion { id: "who".to_owned(), version: "1".to_owned() };
                let (objects, object_count) = (vec![object], 1);
                let (generation, layout) = (1, 1);
                let prepared =
                    Prepared { objects, object_count, generation, layout, ..Prepared::default() };
                Body::Prepared(prepared)
            }
            Body::Serve(_) => {
                let connection = fd.unwrap();
                let kept = connection.try_clone().unwrap();
                let flags = rustix::pipe::PipeFlags::CLOEXEC;
                let (stopped, stop) = rustix::pipe::pipe_with(flags).unwrap();
                self.connections.lock().unwrap().push((kept, stop));
                let mute = Arc::clone(&self.mute);
                std::thread::spawn(move || {
                    mini_fuse::serve(&connection, &stopped, "asking", &mute);
                });
                Body::Serving(Serving {})
            }
            Body::Release(_) => Body::Released(Released {}),
            _ => Body::Acknowledged(Acknowledged {}),
        };
        Ok(answer.into())
    }
}

/// The driver's helpers that have not ended.
fn helpers(driver: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{driver}/task")).unwrap();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let lives = |pid: &&str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    let count = |children: String| children.split_whitespace().filter(lives).count();
    children.map(count).sum()
}

async fn published() -> (Machine, DriverProcess, Asking) {
    let machine = Machine::new();
    let driver = DriverProcess::started(&machine).await;
    let agent = Asking::connected(&machine).await;
    machine.publish("csi-1", "uid-1", "token").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "asking");
    (machine, driver, agent)
}

/// The refusal comes at the helper's deadline, and meanwhile the driver has time for others.
async fn refused_in_time(machine: &Machine, driver: &DriverProcess, agent: &Asking) {
    let began = Instant::now();
    let others = async {
        eventually("a helper tries", || helpers(driver.id()) == 1).await;
        for _ in 0..3 {
            let asked = Instant::now();
            machine.publish("csi-1", "uid-1", "another").await.unwrap();
            machine.connect("csi/csi.sock").await;
            assert!(asked.elapsed() < PROMPTLY, "the driver was held up");
        }
    };
    let (error, ()) = tokio::join!(agent.rotate(), others);
    let took = began.elapsed();
    let CallError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code(), Code::DeadlineExceeded, "{}", refusal.message());
    assert!((DEADLINE..DEADLINE + PROMPTLY).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_whose_request_nobody_reads_ends_by_its_deadline() {
    let (machine, driver, agent) = published().await;
    agent.fall_silent(false);
    refused_in_time(&machine, &driver, &agent).await;
    eventually("the helper is gone", || helpers(driver.id()) == 0).await;
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty());
}

/// The kernel doesn't let a process go whose request was read: it goes when the next agent answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_helper_whose_request_was_read_costs_the_driver_nothing_and_goes_with_the_agent() {
    let (machine, driver, agent) = published().await;
    agent.fall_silent(true);
    refused_in_time(&machine, &driver, &agent).await;
    agent.die().await;
    let _next = Agent::connected(&machine.run_dir(), "next", Behaviour::default()).await;
    eventually("the helper is gone", || helpers(driver.id()) == 0).await;
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "next");
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_killed_at_that_moment_starts_again_and_the_mount_is_served_on() {
    let (machine, driver, agent) = published().await;
    agent.fall_silent(true);
    let id = driver.id();
    let (_, ()) = tokio::join!(
        tokio::time::timeout(DEADLINE, agent.rotate()),
        eventually("a helper tries", || helpers(id) == 1),
    );
    driver.kill();
    let restarted = DriverProcess::started(&machine).await;
    machine.publish("csi-1", "uid-1", "another").await.unwrap();
    agent.die().await;
    let _next = Agent::connected(&machine.run_dir(), "next", Behaviour::default()).await;
    // Its holders were the killed driver and the agent that died: mounted afresh, or served on.
    machine.publish("csi-1", "uid-1", "another").await.unwrap();
    assert_eq!(machine.who_serves("uid-1").await.unwrap(), "next");
    machine.unpublish("csi-1", "uid-1").await.unwrap();
    assert!(machine.mounts().is_empty() && helpers(restarted.id()) == 0);
}
