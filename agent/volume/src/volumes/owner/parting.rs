//! The end of logins that the volume has gone over from: see [`super::super::former`].

use std::sync::Arc;

use sotto_store::StoreSession;
use tokio::sync::oneshot;

use super::super::Shared;
use super::super::former::Former;
use super::ending::revoke;
use super::{Done, Owner};

impl Owner {
    /// Revokes them, once the mount shows what came after them. Each has one try, within a deadline, and is left to
    /// the next worker until that has ended.
    pub(super) fn part(&mut self) {
        let Some(held) = self.state.held_mut() else { return };
        if held.pending.is_some() || held.staged.is_some() {
            return;
        }
        for former in held.former.iter_mut().filter(|former| !former.is_being_revoked) {
            former.is_being_revoked = true;
            let session = Arc::clone(&former.session);
            let (shared, volume) = (Arc::clone(&self.shared), self.spec.volume.clone());
            let (told, parted) = oneshot::channel();
            // Not given up when the volume ends.
            self.shared.services.drain.spawn(async move {
                if revoke(&session, shared.services.deadlines.revoke).await.is_ok() {
                    tracing::info!(%volume, "a former login is revoked at its store");
                }
                let _ = told.send(session);
            });
            self.work.push(Box::pin(async move { Done::Parted(parted.await.ok()) }));
        }
    }

    pub(super) fn parted(&mut self, session: Option<&Arc<StoreSession>>) {
        let (Some(held), Some(session)) = (self.state.held_mut(), session) else { return };
        held.former.retain(|former| !Arc::ptr_eq(&former.session, session));
    }
}

/// The volume ends: nobody needs them any more.
pub(super) fn part_at_the_end(shared: &Arc<Shared>, former: Vec<Former>) {
    let deadline = shared.services.deadlines.revoke;
    for former in former.into_iter().filter(|former| !former.is_being_revoked) {
        shared.services.drain.spawn(async move {
            let _ = revoke(&former.session, deadline).await;
        });
    }
}
