//! A sotto-node's part, in this process: it speaks the handoff protocol and serves by [`super::mini_fuse`].

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sotto_handoff::handshake::{self, HandshakeError};
use sotto_handoff::link::{Answer, CallError, Handler, Link};
use sotto_handoff::message::{
    Acknowledged, AssignedStore, Assignment, Code, ObjectVersion, Ping, Pong, Prepare, Prepared,
    Released, Resolved, Returned, Role, Serving, frame::Body,
};
use sotto_handoff::refusal::Refusal;
use sotto_handoff::socket::connect;
use tokio::sync::watch;

use super::behaviour::{Behaviour, Pinging, Returning};
use super::machine::eventually;
use super::mini_fuse::{self, Mute};

/// What an agent was asked, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Prepare { volume: String, tokens: String, group: Option<u32> },
    Serve { volume: String, resend: bool },
    Token { volume: String, tokens: String },
    Release { volume: String },
    Return { volume: String },
    Resolve { volume: String, pod: String, class: String },
    Notice { reason: String },
}

/// One agent process.
pub(crate) struct Agent {
    state: Arc<State>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
    link: Mutex<Option<Link>>,
}

struct State {
    instance: String,
    role: Role,
    behaviour: Behaviour,
    asked: watch::Sender<Vec<Asked>>,
    served: Mutex<HashMap<String, Served>>,
    mute: Arc<Mute>,
    tokens: Mutex<Vec<u8>>,
    pings: watch::Sender<usize>,
}

struct Served {
    /// Kept while the thread is stopped.
    connection: OwnedFd,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Whether the connection has ended: it was unmounted.
    fn is_over(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Agent {
    /// An agent that is connected to the driver of `run_dir`.
    pub(crate) async fn connected(run_dir: &Path, instance: &str, behaviour: Behaviour) -> Self {
        let agent = Self::new(Role::NodeAgent, instance, behaviour);
        agent.connect(run_dir).await;
        agent
    }

    /// A pod's sidecar, at the pod's socket in `handoff`.
    pub(crate) async fn sidecar(
        handoff: &Path,
        instance: &str,
        behaviour: Behaviour,
    ) -> Result<Self, HandshakeError> {
        let agent = Self::new(Role::Sidecar, instance, behaviour);
        agent.connect_at(&handoff.join("handoff.sock")).await?;
        Ok(agent)
    }

    /// A probe of a pod's sidecar.
    pub(crate) async fn probe(handoff: &Path) -> Self {
        let probe = Self::new(Role::Probe, "probe", Behaviour::default());
        probe.connect_at(&handoff.join("handoff.sock")).await.unwrap();
        probe
    }

    fn new(role: Role, instance: &str, behaviour: Behaviour) -> Self {
        let state = State {
            instance: instance.to_owned(),
            role,
            behaviour,
            asked: watch::Sender::new(Vec::new()),
            served: Mutex::default(),
            mute: Arc::default(),
            tokens: Mutex::default(),
            pings: watch::Sender::default(),
        };
        Self { state: Arc::new(state), task: Mutex::new(None), link: Mutex::new(None) }
    }

    /// Connects, again if need be, and keeps what it serves.
    pub(crate) async fn connect(&self, run_dir: &Path) {
        self.connect_at(&run_dir.join("node.sock")).await.unwrap();
    }

    /// The same, at any socket.
    pub(crate) async fn connect_at(&self, socket: &Path) -> Result<(), HandshakeError> {
        self.disconnect().await;
        let connection = connect(socket).await.unwrap();
        handshake::hello(&connection, self.state.role, &self.state.instance).await?;
        let (link, run) = Link::start(connection, Arc::new(Requests(Arc::clone(&self.state))), 512);
        let task = tokio::spawn(async move {
            run.await;
        });
        *self.task.lock().unwrap() = Some(task);
        *self.link.lock().unwrap() = Some(link);
        Ok(())
    }

    /// Asks the driver.
    pub(crate) async fn ask(&self, body: Body) -> Result<Body, CallError> {
        let link = self.link.lock().unwrap().clone().unwrap();
        Ok(link.call(body, None, super::machine::PATIENCE).await?.body)
    }

    /// Loses the connection, but not the volumes.
    pub(crate) async fn disconnect(&self) {
        *self.link.lock().unwrap() = None;
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Dies: connection, fds and threads end.
    pub(crate) async fn die(self) {
        self.disconnect().await;
        let served = std::mem::take(&mut *self.state.served.lock().unwrap());
        tokio::task::spawn_blocking(|| drop(served)).await.unwrap();
    }

    /// Answers no reader any more, but keeps its connections open.
    pub(crate) async fn freeze(&self) {
        let state = Arc::clone(&self.state);
        let freeze = move || state.served.lock().unwrap().values_mut().for_each(Served::stop);
        tokio::task::spawn_blocking(freeze).await.unwrap();
    }

    /// Reads on, and answers nothing.
    pub(crate) fn mute(&self) {
        self.state.mute.is_on.store(true, Ordering::SeqCst);
    }

    /// Waits until requests wait on a connection that it holds and doesn't serve any more.
    pub(crate) async fn requests_wait(&self) {
        let waits = |served: &Served| {
            let mut ready = [PollFd::new(&served.connection, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut ready, Some(&now)).unwrap() == 1
        };
        eventually("requests wait", || self.state.served.lock().unwrap().values().any(waits)).await;
    }

    /// Waits until it has read `count` requests that it doesn't answer.
    pub(crate) async fn swallowed(&self, count: usize) {
        let swallowed = || self.state.mute.swallowed.load(Ordering::SeqCst);
        eventually("requests are read", || swallowed() >= count).await;
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.borrow().clone()
    }

    /// Waits until it was asked what `wanted` looks for.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Asked) -> bool) {
        let mut asked = self.state.asked.subscribe();
        let found = asked.wait_for(|asked| asked.iter().any(&wanted));
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), found).await;
        assert!(found.is_ok(), "it was asked only {:?}", self.asked());
    }

    /// Waits until it was pinged `count` times.
    pub(crate) async fn pinged(&self, count: usize) {
        let mut pings = self.state.pings.subscribe();
        let pinged = pings.wait_for(|pings| *pings >= count);
        let pinged = tokio::time::timeout(super::machine::PATIENCE, pinged).await;
        assert!(pinged.is_ok(), "it was not pinged");
    }

    /// Volumes that it serves.
    pub(crate) fn serves(&self) -> usize {
        let served = self.state.served.lock().unwrap();
        served.values().filter(|served| !served.is_over()).count()
    }

    /// How often it was asked to prepare.
    pub(crate) fn prepares(&self) -> usize {
        self.asked().iter().filter(|asked| matches!(asked, Asked::Prepare { .. })).count()
    }
}

/// What every class is resolved to.
fn assignment() -> Assignment {
    let store = Some(AssignedStore { name: "main".to_owned(), ..AssignedStore::default() });
    Assignment { store, ..Assignment::default() }
}

struct Requests(Arc<State>);

impl Handler for Requests {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        let state = &self.0;
        tokio::time::sleep(state.behaviour.thinks).await;
        match body {
            Body::Ping(Ping {}) => state.ping().await,
            Body::Prepare(prepare) => state.prepare(prepare).await,
            Body::Serve(serve) => {
                state.note(Asked::Serve { volume: serve.volume_id.clone(), resend: serve.resend });
                if let Some(refusal) = &state.behaviour.refuse_serve {
                    return Err(refusal.clone());
                }
                assert_eq!(serve.init.unwrap().major, 7);
                if let Some(gate) = &state.behaviour.serve_gate {
                    gate.acquire().await.unwrap().forget();
                }
                state.serve(serve.volume_id, fd.unwrap(), serve.resend);
                Ok(Body::Serving(Serving {}).into())
            }
            Body::Token(token) => {
                let known = state.knows(&token.volume_id);
                let tokens = String::from_utf8(token.service_account_tokens).unwrap();
                state.note(Asked::Token { volume: token.volume_id, tokens });
                if !known {
                    return Err(Refusal::new(Code::NotFound, "no such volume"));
                }
                Ok(Body::Acknowledged(Acknowledged {}).into())
            }
            Body::Return(wanted) => state.give_back(wanted.volume_id),
            Body::Release(release) => {
                let served = state.served.lock().unwrap().remove(&release.volume_id);
                tokio::task::spawn_blocking(|| drop(served)).await.unwrap();
                state.note(Asked::Release { volume: release.volume_id });
                Ok(Body::Released(Released {}).into())
            }
            Body::Resolve(resolve) => {
                state.note(Asked::Resolve {
                    volume: resolve.volume_id,
                    pod: resolve.pod.unwrap().uid,
                    class: resolve.secret_provider_class,
                });
                let resolved = Body::Resolved(Resolved { assignment: Some(assignment()) });
                state.behaviour.refuse_resolve.clone().map_or(Ok(resolved.into()), Err)
            }
            Body::Notice(notice) => {
                state.note(Asked::Notice { reason: notice.reason });
                Ok(Body::Acknowledged(Acknowledged {}).into())
            }
            Body::Standby(_) => Ok(Body::Acknowledged(Acknowledged {}).into()),
            other => panic!("an agent is never asked {other:?}"),
        }
    }
}

impl State {
    fn note(&self, asked: Asked) {
        self.asked.send_modify(|all| all.push(asked));
    }

    async fn prepare(&self, prepare: Prepare) -> Result<Answer, Refusal> {
        assert!(prepare.deadline_ms > 0);
        let wanted = (self.role == Role::Sidecar).then(assignment);
        assert_eq!(prepare.assignment, wanted);
        self.tokens.lock().unwrap().clone_from(&prepare.service_account_tokens);
        self.note(Asked::Prepare {
            volume: prepare.volume_id,
            tokens: String::from_utf8(prepare.service_account_tokens).unwrap(),
            group: prepare.mount_group,
        });
        if let Some(gate) = &self.behaviour.gate {
            gate.acquire().await.unwrap().forget();
        }
        let object = ObjectVersion { id: "who".to_owned(), version: "1".to_owned() };
        let prepared = Body::Prepared(Prepared {
            objects: vec![object],
            object_count: 1,
            generation: 1,
            layout: 1,
            ..Prepared::default()
        });
        self.behaviour.refuse_prepare.clone().map_or(Ok(prepared.into()), Err)
    }

    /// Whether it serves the volume; it notices the end of a connection by itself.
    fn knows(&self, volume: &str) -> bool {
        self.served.lock().unwrap().get(volume).is_some_and(|served| !served.is_over())
    }

    async fn ping(&self) -> Result<Answer, Refusal> {
        self.pings.send_modify(|pings| *pings += 1);
        self.served.lock().unwrap().retain(|_, served| !served.is_over());
        match self.behaviour.pinging {
            Pinging::Answered => Ok(Body::Pong(Pong {}).into()),
            Pinging::Unknown => Err(Refusal::new(Code::Unimplemented, "not known")),
            Pinging::Ignored => std::future::pending().await,
        }
    }

    fn give_back(&self, volume: String) -> Result<Answer, Refusal> {
        self.note(Asked::Return { volume: volume.clone() });
        let mut served = self.served.lock().unwrap();
        served.retain(|_, served| !served.is_over());
        let own = |other: bool| served.iter().find(|(id, _)| (**id == volume) != other);
        let connection = |other| own(other).map(|(_, it)| it.connection.try_clone().unwrap());
        let fd = match self.behaviour.returning {
            Returning::Own => connection(false),
            Returning::Unknown => return Err(Refusal::new(Code::Unimplemented, "not known")),
            Returning::AnotherFile => Some(std::fs::File::open("/dev/null").unwrap().into()),
            Returning::AnotherVolume => connection(true),
        };
        let fd = Some(fd.ok_or_else(|| Refusal::new(Code::NotFound, "no such volume"))?);
        let service_account_tokens = self.tokens.lock().unwrap().clone();
        let known = Returned { generation: 1, layout: 1, object_count: 1, ..Returned::default() };
        let returned = Returned { service_account_tokens, ..known };
        Ok(Answer { body: Body::Returned(returned), fd })
    }

    fn serve(&self, volume: String, connection: OwnedFd, resend: bool) {
        if resend {
            rustix::io::write(&connection, &sotto_core::fuse_init::RESEND).unwrap();
        }
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let who = self.instance.clone();
        let kept = connection.try_clone().unwrap();
        let mute = Arc::clone(&self.mute);
        let thread =
            std::thread::spawn(move || mini_fuse::serve(&connection, &stopped, &who, &mute));
        let served = Served { connection: kept, stop: Some(stop), thread: Some(thread) };
        self.served.lock().unwrap().insert(volume, served);
    }
}
