//! What a volume leaves with the supervisor, and how one that was left goes on.

use std::sync::Arc;

use sotto_core::identity::VolumeId;
use sotto_core::secret::SecretString;
use sotto_fuse::{Negotiated, Server};
use sotto_runtime::memory::handover;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Shared;
use super::super::deposit::{Fingerprint, Left};
use super::super::held::Held;
use super::super::registry::{Letter, Registered};
use super::super::request::VolumeSpec;
use super::super::turn::Turn;
use super::returning::PodToken;
use super::{Done, Owner, State};
use crate::audit::VolumeAudit;

/// A volume that a former worker served, with its server.
pub(in super::super) struct Restored {
    pub(in super::super) spec: Arc<VolumeSpec>,
    pub(in super::super) registered: Registered,
    pub(in super::super) commands: mpsc::Receiver<Letter>,
    pub(in super::super) held: Held,
    pub(in super::super) server: Server,
    pub(in super::super) init: Negotiated,
    pub(in super::super) token: SecretString,
    /// The turn that was under way.
    pub(in super::super) again: Option<Turn>,
}

/// How a volume's thread is called in lists.
pub(in super::super) fn thread_name(volume: &VolumeId) -> String {
    format!("fuse-{}", volume.as_str().trim_start_matches("csi-"))
}

impl Restored {
    /// Starts its owner.
    pub(in super::super) fn spawn(self, shared: &Arc<Shared>) {
        let Self { spec, registered, commands, mut held, server, init, token, again } = self;
        let log = shared.services.audit.clone();
        let mut audit = VolumeAudit::new(log, &spec.volume, &spec.identity);
        audit.set_store(&held.plan.store);
        let ended = server.ended();
        held.servers.push(Arc::new(server));
        held.take_place();
        held.pending = again.map(|turn| (Instant::now(), turn));
        let mut owner = Owner {
            shared: Arc::clone(shared),
            audit,
            spec,
            registered,
            commands,
            work: [Box::pin(async move { Done::ServerEnded(ended.await) }) as _]
                .into_iter()
                .collect(),
            cancel: CancellationToken::new(),
            state: State::Serving { held: Box::new(held) },
            pod_token: PodToken::Verified(token),
            init: Some(init),
            left_last: Fingerprint::default(),
        };
        owner.part();
        shared.services.drain.spawn(owner.run());
    }
}

impl Owner {
    /// Leaves the connection with the supervisor.
    pub(super) fn leave_connection(&self, server: &Server) {
        let keeper = &self.shared.services.keeper;
        if keeper.is_kept() {
            let volume = self.spec.volume.as_str();
            let left = server.connection().and_then(|fd| keeper.keep_connection(volume, fd));
            self.note(left.err());
        }
    }

    /// Leaves everything else, if it has changed, and when it was found to be good; after whatever may have changed it,
    /// and before the first step of a turn.
    pub(super) fn leave_values(&mut self) {
        let (keeper, volume) = (&self.shared.services.keeper, self.spec.volume.as_str());
        let (State::Serving { held }, Some(init)) = (&self.state, self.init) else { return };
        if !keeper.is_kept() {
            return;
        }
        let left = Left {
            spec: &self.spec,
            init,
            held,
            pod_token: self.pod_token.verified(),
            now: self.shared.services.clock.now(),
            at: Instant::now(),
        };
        let confirmed_ms = left.confirmed_ms();
        let Some(message) = left.encode_unless(&mut self.left_last) else {
            return keeper.confirm(volume, confirmed_ms);
        };
        let kept = handover::deposit(&message)
            .and_then(|values| keeper.keep_values(volume, values, confirmed_ms));
        if let Err(error) = kept {
            // An old deposit would bring old values back.
            let forgotten = keeper.forget(volume);
            self.left_last.forget();
            self.note(Some(error));
            self.note(forgotten.err());
        }
    }

    fn note(&self, error: Option<std::io::Error>) {
        if let Some(error) = error {
            tracing::warn!(
                volume = %self.spec.volume, %error,
                "the supervisor keeps nothing of this volume: after a crash it is fetched anew"
            );
        }
    }
}
