//! The driver's part at a pod's socket.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sotto_handoff::handshake;
use sotto_handoff::link::{Answer, CallError, Handler, Link};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{
    Acknowledged, Assignment, Code, Prepare, Release, Resolve, Resolved, Role, StateIs,
};
use sotto_handoff::refusal::Refusal;
use sotto_handoff::socket::{self, Listener};

use super::kernel::Kernel;
use super::scene::PATIENCE;

/// What it answers, and what it was asked.
#[derive(Default)]
pub(crate) struct Driver {
    /// For Resolve; without one `sotto-node` is away.
    pub(crate) resolved: Mutex<Option<Assignment>>,
    /// What a Resolve is refused with.
    pub(crate) denied: Mutex<Option<Refusal>>,
    /// For State.
    pub(crate) state: Mutex<StateIs>,
    pub(crate) asked: Mutex<Vec<Resolve>>,
}

/// One link of a sidecar.
pub(crate) struct Sidecar {
    pub(crate) instance: String,
    pub(crate) link: Link,
}

impl Handler for Driver {
    async fn handle(&self, body: Body, _: Option<OwnedFd>) -> Result<Answer, Refusal> {
        match body {
            Body::Resolve(message) => {
                self.asked.lock().unwrap().push(message);
                if let Some(refusal) = self.denied.lock().unwrap().clone() {
                    return Err(refusal);
                }
                let assignment = self.resolved.lock().unwrap().clone();
                let away = || Refusal::new(Code::Unavailable, "sotto-node is away");
                let assignment = Some(assignment.ok_or_else(away)?);
                Ok(Body::Resolved(Resolved { assignment }).into())
            }
            Body::State(_) => Ok(Body::StateIs(self.state.lock().unwrap().clone()).into()),
            Body::Leaving(_) => Ok(Body::Acknowledged(Acknowledged {}).into()),
            Body::Rotate(_) => Err(Refusal::new(Code::Unavailable, "nothing turns here")),
            other => panic!("a sidecar doesn't ask {other:?}"),
        }
    }
}

/// Listens in a handoff volume.
pub(crate) fn listen(handoff: &Path) -> Listener {
    socket::listen(&handoff.join("handoff.sock"), 0o666, None).unwrap()
}

/// The next peer, which must be of that role.
pub(crate) async fn accept(driver: &Arc<Driver>, listener: &Listener, role: Role) -> Sidecar {
    let (connection, agreed) = loop {
        let connection = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        // One that was killed meanwhile says nothing.
        if let Ok(agreed) = handshake::welcome(&connection, false).await {
            break (connection, agreed);
        }
    };
    assert_eq!(agreed.role, role);
    let (link, task) = Link::start(connection, Arc::clone(driver), 16);
    // It ends with the test's runtime, or with its peer.
    tokio::spawn(task);
    Sidecar { instance: agreed.instance, link }
}

impl Sidecar {
    pub(crate) async fn ask(&self, body: Body) -> Result<Answer, (Code, String)> {
        match self.link.call(body, None, PATIENCE).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused(refusal)) => Err((refusal.code(), refusal.message().to_owned())),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn prepare(&self, message: &Prepare) -> Result<(), (Code, String)> {
        let answer = self.ask(Body::Prepare(message.clone())).await?;
        assert!(matches!(answer.body, Body::Prepared(_)), "{:?}", answer.body);
        Ok(())
    }

    /// Hands a new connection out.
    pub(crate) async fn serve(&self, volume: &str) -> Kernel {
        use sotto_handoff::message::{Init, Serve};
        let (kernel, fuse) = Kernel::new();
        let init = Init { major: 7, minor: 40, max_readahead: 4096, flags: 0, max_write: 4096 };
        let serve = Serve { volume_id: volume.to_owned(), init: Some(init), resend: false };
        let fuse = Some(std::os::fd::AsFd::as_fd(&fuse));
        let answer = self.link.call(Body::Serve(serve), fuse, PATIENCE).await.unwrap();
        assert!(matches!(answer.body, Body::Serving(_)));
        kernel
    }

    pub(crate) async fn release(&self, volume: &str) {
        let release = Body::Release(Release { volume_id: volume.to_owned() });
        assert!(matches!(self.ask(release).await.unwrap().body, Body::Released(_)));
    }
}
