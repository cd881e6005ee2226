//! What a prepared volume is asked while it lives: to be served, and to take a fresh token.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sotto_fuse::{End, Negotiated, Server};
use tokio::time::Instant;

use super::super::error::VolumeError;
use super::super::prepare;
use super::super::request::Brought;
use super::ending::Ending;
use super::returning::PodToken;
use super::{Done, Owner, Reply, State, answer, nothing};
use crate::token::VerifiedToken;

/// Servers of one volume that may live at once.
const MOST_SERVERS: usize = 4;

impl Owner {
    pub(super) fn serve(
        &mut self,
        fuse: OwnedFd,
        init: Negotiated,
        resend: bool,
        reply: Reply<()>,
    ) {
        let volume = self.spec.volume.clone();
        let held = match &mut self.state {
            State::Preparing { .. } => return answer(reply, Err(VolumeError::NotReady(volume))),
            State::Ready { held, until } => {
                *until = Instant::now() + self.shared.services.deadlines.unserved;
                held
            }
            State::Serving { held } => held,
        };
        if held.is_served() {
            if resend {
                // The connection had a server before, and has it still: us.
                return answer(reply, Ok(()));
            }
            if held.servers.len() >= MOST_SERVERS {
                return answer(reply, Err(VolumeError::Busy(volume)));
            }
        }
        let (tree, audit) = (Arc::clone(&held.tree), Arc::new(self.audit.clone()));
        let name = super::thread_name(&volume);
        self.init = Some(init);
        self.work.push(Box::pin(async move {
            // Blocks for a handshake within this process.
            let start = move || {
                let inodes: Vec<_> = tree.current().nodes().iter().map(|it| it.inode).collect();
                let server = Server::start(tree, fuse, &init, resend, audit, &name)?;
                if resend {
                    // What a former server let the kernel cache may be older than what we fetched.
                    inodes.into_iter().try_for_each(|inode| server.invalidate(inode).map(drop))?;
                }
                io::Result::Ok(server)
            };
            let served = match tokio::task::spawn_blocking(start).await {
                Ok(Ok(server)) => Ok(server),
                Ok(Err(error)) => Err(VolumeError::Attach { volume, reason: error.to_string() }),
                Err(error) => Err(VolumeError::Attach { volume, reason: error.to_string() }),
            };
            Done::Served(served, reply)
        }));
    }

    pub(super) fn served(&mut self, served: Result<Server, VolumeError>, reply: Reply<()>) {
        let server = match served {
            Ok(server) => server,
            Err(error) => return answer(reply, Err(error)),
        };
        let ended = server.ended();
        self.work.push(Box::pin(async move { Done::ServerEnded(ended.await) }));
        self.state = match std::mem::replace(&mut self.state, nothing()) {
            State::Ready { mut held, .. } | State::Serving { mut held } => {
                self.leave_connection(&server);
                held.servers.push(Arc::new(server));
                held.shows_current();
                State::Serving { held }
            }
            preparing @ State::Preparing { .. } => preparing,
        };
        self.leave_values();
        tracing::info!(volume = %self.spec.volume, pod = %self.spec.identity, "serving");
        answer(reply, Ok(()));
    }

    pub(super) fn server_ended(&mut self, end: &End) -> ControlFlow<Ending> {
        self.state = match std::mem::replace(&mut self.state, nothing()) {
            State::Serving { mut held } => {
                if held.is_served() {
                    State::Serving { held }
                } else {
                    let until = match end {
                        // Its secrets have no reader any more.
                        End::Disconnected => Instant::now(),
                        End::Failed(reason) => {
                            tracing::error!(volume = %self.spec.volume, %reason, "a server failed");
                            Instant::now() + self.shared.services.deadlines.unserved
                        }
                    };
                    State::Ready { held, until }
                }
            }
            other => other,
        };
        ControlFlow::Continue(())
    }

    /// Verifies a fresh token, to log in with when the store's token has ended.
    pub(super) fn verify(&mut self, brought: Brought, reply: Reply<()>) {
        let held = match &self.state {
            State::Preparing { .. } => {
                return answer(reply, Err(VolumeError::NotReady(self.spec.volume.clone())));
            }
            State::Ready { held, .. } | State::Serving { held } => held,
        };
        held.session.take_publish_secrets(brought.publish_secrets());
        let (store, audience) = (held.plan.store.clone(), held.plan.audience.clone());
        let (shared, spec, audit) =
            (Arc::clone(&self.shared), Arc::clone(&self.spec), self.audit.clone());
        self.work.push(Box::pin(async move {
            let wanted = (&store, &audience);
            let verified = prepare::verify(&shared, &spec, &audit, &brought.tokens, wanted).await;
            Done::Token(verified, reply)
        }));
    }

    pub(super) fn renewed(&mut self, token: Result<VerifiedToken, VolumeError>, reply: Reply<()>) {
        let renewed = token.map(|token| match &self.state {
            State::Ready { held, .. } | State::Serving { held } => {
                held.session.renew_identity(&token.jwt);
                self.pod_token = PodToken::Verified(token.jwt);
            }
            State::Preparing { .. } => {}
        });
        answer(reply, renewed);
    }
}
