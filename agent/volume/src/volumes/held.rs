//! What a prepared volume holds.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sotto_core::class::SecretProviderClass;
use sotto_core::rotation::RefreshPolicy;
use sotto_core::secret::SecretString;
use sotto_core::snapshot::{Generation, Snapshot};
use sotto_fuse::{Server, Tree};
use sotto_store::{Lease, StoreSession, VolumePlan};
use tokio::time::Instant;

use super::continuing::Beginning;
use super::counting::NotFresh;
use super::demand::Demand;
use super::former::Former;
use super::gate::Place;
use super::owner::FailedEdit;
use super::request::{Shown, Told};
use super::settings::{Planned, Settings};
use super::showing::Showing;
use super::status;
use super::turn::Turn;
use super::turning::Turning;

/// How long an old generation's directory stays, for those that resolved a path in it.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// What a former worker left about a volume's time.
pub(super) struct Resumed {
    /// Of the last good values.
    pub(super) age: Duration,
    /// The highest number that a generation ever had.
    pub(super) last: Generation,
    pub(super) refused: BTreeSet<usize>,
    pub(super) is_closed: bool,
    /// Objects whose values are to be made anew at once.
    pub(super) expiring: BTreeSet<usize>,
    pub(super) leases: Vec<Lease>,
    /// Generations that are to go.
    pub(super) old: Vec<Generation>,
    /// Generations that a subPath bind still shows.
    pub(super) hidden: Vec<Generation>,
}

/// A volume's secrets and the login that they were fetched with.
pub(super) struct Held {
    pub(super) settings: Arc<Settings>,
    pub(super) class: Arc<SecretProviderClass>,
    pub(super) plan: Arc<VolumePlan>,
    pub(super) session: Arc<StoreSession>,
    /// Logins that were gone over from and are not revoked yet.
    pub(super) former: Vec<Former>,
    pub(super) tree: Arc<Tree>,
    /// Those that serve it now: more than one only while a connection is handed over.
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) turning: Turning,
    /// What the mount shows when this volume is served next.
    expects: Told,
    /// A refresh, a turn or the end of an old generation is under way.
    pub(super) is_busy: bool,
    /// A turn that was not completed, and when it is tried again.
    pub(super) pending: Option<(Instant, Turn)>,
    /// Old generations, and when they go; oldest first.
    pub(super) old: VecDeque<(Instant, Generation)>,
    /// The last thing that was done was to let one of them go.
    pub(super) has_retired: bool,
    /// Generations that a subPath bind still shows.
    pub(super) hidden: Vec<Generation>,
    /// The class was read for the refresh that is due.
    pub(super) has_class_seen: bool,
    /// The class as it is now, if the volume can't follow it.
    pub(super) failed_edit: Option<FailedEdit>,
    /// What is being turned to.
    pub(super) staged: Option<Arc<Snapshot>>,
    /// Who asked for a refresh.
    pub(super) demand: Demand,
    /// Among the volumes of the store.
    pub(super) place: Option<Place>,
    pub(super) not_fresh: NotFresh,
}

impl Held {
    pub(super) fn new(
        planned: Planned,
        session: StoreSession,
        beginning: Beginning,
        leases: Vec<Lease>,
        policy: RefreshPolicy,
        now: SystemTime,
    ) -> Self {
        let token = session.token_life();
        let Planned { settings, class, plan } = planned;
        let Beginning { current, next, before, older, shown } = beginning;
        let (current, before) = (Arc::new(current), before.map(Arc::new));
        let staged = before.as_ref().map(|_| Arc::clone(&current)).or(next.map(Arc::new));
        let last = staged.as_ref().unwrap_or(&current).generation();
        let turning = Turning::new(policy, &plan, leases, last, token);
        let expects = shown.told();
        let leave = Instant::now() + GRACE;
        let old = older.iter().map(|snapshot| (leave, snapshot.generation())).collect();
        let mut older: Vec<_> = older.into_iter().map(Arc::new).collect();
        let tree = match &before {
            Some(before) => {
                older.push(Arc::clone(before));
                let tree = Tree::restore(current, older, Vec::new());
                tree.unsettle(before.generation());
                tree
            }
            None if !older.is_empty() => Tree::restore(current, older, Vec::new()),
            None if shown.generation.is_none() => Tree::new(current),
            None => Tree::over(current),
        };
        let (plan, session, tree) = (Arc::new(plan), Arc::new(session), Arc::new(tree));
        let turn = staged.clone().map(|next| {
            let again_from = before.clone();
            Turn { next: Some(next), again_from, ..Turn::default() }
        });
        let held = Self {
            settings,
            class,
            plan,
            session,
            former: Vec::new(),
            tree,
            servers: Vec::new(),
            turning,
            expects,
            is_busy: false,
            pending: turn.map(|turn| (Instant::now(), turn)),
            old,
            has_retired: false,
            hidden: Vec::new(),
            has_class_seen: false,
            failed_edit: None,
            staged,
            demand: Demand::default(),
            place: None,
            not_fresh: NotFresh::default(),
        };
        held.show_status(now);
        held
    }

    /// A volume that a former worker served: its tree, and what was being turned to.
    pub(super) fn resumed(
        planned: Planned,
        (session, former): (StoreSession, Vec<Former>),
        (tree, staged): (Arc<Tree>, Option<Arc<Snapshot>>),
        policy: RefreshPolicy,
        resumed: Resumed,
        confirmed: SystemTime,
    ) -> Self {
        let Planned { settings, class, plan } = planned;
        let old = resumed.old.iter().map(|generation| (Instant::now() + GRACE, *generation));
        let (old, hidden) = (old.collect(), resumed.hidden.clone());
        let turning = Turning::resumed(policy, &plan, session.token_life(), resumed);
        let current = Showing::of(&tree.current());
        let held = Self {
            settings,
            class,
            plan: Arc::new(plan),
            session: Arc::new(session),
            former,
            tree,
            servers: Vec::new(),
            turning,
            expects: (Some(current.generation), current.content, None),
            is_busy: false,
            pending: None,
            old,
            has_retired: false,
            hidden,
            has_class_seen: false,
            failed_edit: None,
            staged,
            demand: Demand::default(),
            place: None,
            not_fresh: NotFresh::default(),
        };
        held.show_status(confirmed);
        held
    }

    /// Goes over to another plan; to another login too, if that needs one. The former login is revoked by the store's
    /// new trust where it is good for the new settings, else by the old one.
    pub(super) fn go_over(
        &mut self,
        planned: Planned,
        session: Option<StoreSession>,
        token: Option<&SecretString>,
    ) {
        let Planned { settings, class, plan } = planned;
        let settings = std::mem::replace(&mut self.settings, settings);
        let class = std::mem::replace(&mut self.class, class);
        self.plan = Arc::new(plan);
        let Some(session) = session else { return };
        let session = std::mem::replace(&mut self.session, Arc::new(session));
        let store = self.settings.stores.get(&self.plan.store);
        let by_new_trust = token
            .zip(store)
            .and_then(|(token, store)| store.resume(&self.plan, token, &session.carry()));
        let (settings, class, session) = match by_new_trust {
            Some(session) => {
                (Arc::clone(&self.settings), Arc::clone(&self.class), Arc::new(session))
            }
            None => (settings, class, session),
        };
        self.former.push(Former { settings, class, session, is_being_revoked: false });
        self.place = None;
    }

    /// Takes its place among the volumes of its store, if it has none, and keeps to their beats.
    pub(super) fn take_place(&mut self) {
        let gate = self.settings.gate(&self.plan.store);
        if let Some(gate) = gate {
            let place = self.place.get_or_insert_with(|| gate.join());
            self.turning.keep_to_beats(place.beats());
        }
    }

    /// Goes by another plan from now on.
    pub(super) fn begin_anew(&mut self, turning: Turning) {
        self.turning = turning;
        self.take_place();
    }

    /// The current generation with its objects.
    pub(super) fn shown(&self) -> Showing {
        Showing::of(&self.tree.current())
    }

    /// The mount shows the current generation now, and the driver knows.
    pub(super) fn shows_current(&mut self) {
        let Showing { generation, content, .. } = self.shown();
        self.expects = (Some(generation), content, None);
    }

    /// Whether this is what may be served where a mount shows that.
    pub(super) fn continues(&self, shown: &Shown) -> bool {
        shown.told() == self.expects
    }

    /// Forgets the servers that have ended. Whether some still serve.
    pub(super) fn is_served(&mut self) -> bool {
        self.servers.retain(|server| !server.is_ended());
        !self.servers.is_empty()
    }

    /// Renews what `..sotto/status.json` shows.
    pub(super) fn show_status(&self, checked: SystemTime) {
        let text = status::text(self.turning.freshness(), &self.tree.current(), checked);
        self.tree.set_status(text, checked);
    }
}
