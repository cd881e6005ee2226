//! The agent in a cluster: classes, events, statuses and the check of the CSIDriver object, over one
//! connection to the API server.
//!
//! Invariant: no volume waits for the API server. Classes come from a cache, reports are queued with a bound,
//! and every task here ends with the drain; what was not sent by then is lost, for it is a courtesy. Called
//! by [`crate::app`] unless classes come from a directory.

mod classes;
mod driver_check;
mod reporter;
mod view;

use std::sync::Arc;

use sotto_core::identity::{Audience, NodeName};
use sotto_kubernetes::classes::{Classes, Settings as ClassSettings};
use sotto_kubernetes::client::{Cluster, ConnectError, Source};
use sotto_kubernetes::events::{self, Events};
use sotto_kubernetes::pod_status::{self, PodStatuses};
use sotto_runtime::drain::Drain;
use sotto_volume::classes::ClassSource;
use sotto_volume::cluster::ClusterView;
use sotto_volume::reporter::PodReporter;

use crate::resolver::{PodCheck, SidecarPods};
use classes::ClusterClasses;
use reporter::ClusterReporter;
use view::View;

/// The component that events are from.
const COMPONENT: &str = "sotto-node";

/// What the agent has of its cluster.
pub struct Membership {
    cluster: Cluster,
    classes: Classes,
    events: Events,
    statuses: PodStatuses,
}

impl Membership {
    /// Reads the connection's configuration and starts the tasks; waits for no answer.
    ///
    /// # Errors
    /// The configuration can't be used; waiting cures none of it.
    pub async fn join(
        source: &Source,
        node: &NodeName,
        drain: &Drain,
    ) -> Result<Self, ConnectError> {
        let cluster = Cluster::connect(source).await?;
        tracing::info!(address = cluster.address(), "classes come from the API server");
        let (classes, watch) = Classes::start(&cluster, ClassSettings::default());
        let reporter = events::Reporter { component: COMPONENT.to_owned(), node: node.clone() };
        let (events, sender) = Events::start(&cluster, reporter, events::Settings::default());
        let (statuses, writer) =
            PodStatuses::start(&cluster, node.clone(), pod_status::Settings::default());
        spawn(drain, watch);
        spawn(drain, sender);
        spawn(drain, writer);
        Ok(Self { cluster, classes, events, statuses })
    }

    /// The classes, from the watch's cache.
    #[must_use]
    pub fn classes(&self) -> Arc<dyn ClassSource> {
        Arc::new(ClusterClasses::new(self.classes.clone()))
    }

    /// Events and statuses of pods.
    #[must_use]
    pub fn reporter(&self) -> Arc<dyn PodReporter> {
        Arc::new(ClusterReporter::new(self.events.clone(), self.statuses.clone()))
    }

    /// What is asked about pods.
    #[must_use]
    pub fn view(&self) -> Arc<dyn ClusterView> {
        Arc::new(View::new(&self.cluster))
    }

    /// Which pods have Sotto's sidecar, with one of these images.
    #[must_use]
    pub fn sidecars(&self, images: Vec<String>) -> Arc<dyn PodCheck> {
        Arc::new(SidecarPods::new(&self.cluster, images))
    }

    /// Compares the CSIDriver object with the stores' audiences, once, as soon as the API server answers;
    /// what is wrong is logged.
    pub fn check_driver(&self, driver: String, audiences: Vec<Audience>, drain: &Drain) {
        spawn(drain, driver_check::run(self.cluster.clone(), driver, audiences));
    }
}

/// The tasks end with the drain, some of them only so.
fn spawn(drain: &Drain, task: impl Future<Output = ()> + Send + 'static) {
    let ended = drain.clone();
    drain.spawn(async move {
        tokio::select! {
            () = task => {}
            () = ended.begun() => {}
        }
    });
}

#[cfg(test)]
mod tests;
