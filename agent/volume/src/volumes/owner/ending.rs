//! The end of a volume: who is told, what is refused, wiped and revoked, in this order.
//!
//! The id stays taken until the store's token is revoked, for at most the release's deadline; requests that
//! come meanwhile wait: a Release is then answered, whatever the volume ended by, and a Prepare begins anew.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use sotto_core::audit::AuditAction;
use sotto_store::StoreSession;
use tokio::sync::mpsc;

use super::super::error::VolumeError;
use super::super::held::Held;
use super::super::registry::{Letter, Registered};
use super::super::showing::Showing;
use super::super::wipe::emptied;
use super::parting::part_at_the_end;
use super::{Command, Done, Owner, Reply, State, replanning};

/// Why a volume ends.
pub(super) enum Ending {
    /// It could not be prepared; a login that was made for it is to be undone.
    Failed(Arc<VolumeError>, Option<StoreSession>),
    /// The driver said so.
    Released(Reply<()>),
    /// Nobody served it in time, or its connection ended.
    Unserved,
    /// The process ends.
    Drained,
}

impl Owner {
    pub(super) async fn end(self, ending: Ending) {
        let Self {
            shared,
            spec,
            audit,
            registered,
            commands,
            mut work,
            cancel,
            state,
            pod_token,
            ..
        } = self;
        drop(pod_token);
        let (deadlines, volume) = (shared.services.deadlines, &spec.volume);
        tracing::debug!(%volume, "a volume ends");
        cancel.cancel();
        if matches!(state, State::Serving { .. } | State::Ready { .. }) {
            replanning::end_orphan(&shared, &mut work);
        }
        let (error, orphan, reply) = match ending {
            Ending::Failed(error, orphan) => (error, orphan, None),
            Ending::Released(reply) => {
                (Arc::new(VolumeError::Released(volume.clone())), None, Some(reply))
            }
            Ending::Unserved => (Arc::new(VolumeError::Ending(volume.clone())), None, None),
            // Revoked leases would break the applications before a successor has others for them.
            Ending::Drained if matches!(state, State::Serving { .. }) => return,
            Ending::Drained => (Arc::new(VolumeError::ShuttingDown), None, None),
        };
        if let Err(error) = shared.services.keeper.forget(volume.as_str()) {
            tracing::warn!(%volume, %error, "the supervisor could not be told of a volume's end");
        }
        let session = match state {
            State::Preparing { waiting } => {
                refuse(waiting, &error);
                match orphan {
                    Some(orphan) => Some(Arc::new(orphan)),
                    None => login_under_way(&mut work, deadlines.release).await,
                }
            }
            State::Ready { mut held, .. } | State::Serving { mut held } => {
                let session = Arc::clone(&held.session);
                part_at_the_end(&shared, std::mem::take(&mut held.former));
                close(*held, deadlines.release).await;
                // One that came to its end just before it heard of the volume's.
                replanning::end_orphan(&shared, &mut work);
                Some(session)
            }
        };
        shared.tidy.soon();
        let Some(session) = session else { return leave(registered, commands, reply) };
        let mut revoked = pin!(revoke(&session, deadlines.revoke));
        let in_time = tokio::time::timeout(deadlines.release, &mut revoked).await;
        if let Ok(revoked) = &in_time {
            audit.decided(AuditAction::Release, revoked.clone().err());
        }
        leave(registered, commands, reply);
        if in_time.is_err() {
            audit.decided(AuditAction::Release, revoked.await.err());
        }
    }
}

/// Gives the id free and answers who waits for that. Whoever asked for anything else sees that the owner is
/// gone.
fn leave(registered: Registered, mut commands: mpsc::Receiver<Letter>, reply: Option<Reply<()>>) {
    drop(registered);
    commands.close();
    let released =
        std::iter::from_fn(|| commands.try_recv().ok()).filter_map(|command| match *command {
            Command::Release { reply } => Some(reply),
            Command::Prepare { .. }
            | Command::Serve { .. }
            | Command::Token { .. }
            | Command::Return { .. }
            | Command::Refresh { .. } => None,
        });
    for reply in reply.into_iter().chain(released) {
        let _ = reply.send(Ok(()));
    }
}

fn refuse(waiting: Vec<Reply<Showing>>, error: &Arc<VolumeError>) {
    for reply in waiting {
        let _ = reply.send(Err(Arc::clone(error)));
    }
}

/// The session of a preparation that was just cancelled: it ends soon, unless its login hangs.
async fn login_under_way(
    work: &mut FuturesUnordered<BoxFuture<'static, Done>>,
    deadline: Duration,
) -> Option<Arc<StoreSession>> {
    let prepared = async {
        while let Some(done) = work.next().await {
            if let Done::Prepared(outcome) = done {
                let held = outcome.result.ok().map(|held| held.session);
                return held.or(outcome.orphan.map(Arc::new));
            }
        }
        None
    };
    tokio::time::timeout(deadline, prepared).await.ok().flatten()
}

/// Refuses all objects, makes the kernel forget them, and wipes them, also where the connection lives on.
async fn close(held: Held, deadline: Duration) {
    let Held { tree, servers, .. } = held;
    let inodes = tree.close();
    let invalidated = tokio::task::spawn_blocking(move || {
        for server in servers.iter().filter(|server| !server.is_ended()) {
            // The first error is the end of the connection.
            let _ = inodes.iter().try_for_each(|inode| server.invalidate(*inode).map(drop));
        }
    });
    if tokio::time::timeout(deadline, invalidated).await.is_err() {
        tracing::warn!("the kernel did not forget a volume's files in time");
    }
    let emptied = emptied(&tree.current()).map(Arc::new);
    if !emptied.is_some_and(|emptied| tree.replace(&emptied)) {
        tracing::error!("a volume's values stay in memory until its connection ends");
    }
}

/// Revokes the token of a login; what is not revoked is logged.
pub(super) async fn revoke(session: &StoreSession, deadline: Duration) -> Result<(), String> {
    let reason = match tokio::time::timeout(deadline, session.revoke()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the store did not answer in time".to_owned(),
    };
    tracing::warn!(%reason, "a store token was not revoked: it lives until its own end");
    Err(format!("the store token was not revoked: {reason}"))
}
