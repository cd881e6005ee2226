//! The parts of the agent put together; logic knows neither this nor `main`.

use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sotto_core::clock::{Clock, SystemClock};
use sotto_core::identity::{Audience, NodeName};
use sotto_runtime::drain::{self, Drain};
use sotto_runtime::memory::{LockedMemory, Protection};
use sotto_runtime::metrics::{AgentMetrics, Sample};
use sotto_runtime::tidy::QUIET;
use sotto_store::ProviderSockets;
use sotto_supervisor::worker::ALIVE_INTERVAL;
use sotto_supervisor::{Keeper, TakenUp};
use sotto_volume::audit::{AuditError, AuditLog, HeldBack};
use sotto_volume::classes::ClassSource;
use sotto_volume::cluster::{ClusterView, NoCluster, Reviews};
use sotto_volume::driver::DriverCalls;
use sotto_volume::driver::link::{DriverLink, Leave};
use sotto_volume::reporter::{NoReports, PodReporter};
use sotto_volume::token::TokenVerifier;
use sotto_volume::volumes::{Deadlines, ServedOn, Services, Settings, Volumes};

use crate::admin::{Admin, Refresher};
use crate::arguments::ServeArguments;
use crate::capacity::Room;
use crate::cluster::Membership;
use crate::config::{AuditOutput, ClassesFrom, Config, Driver};
use crate::driver;
use crate::metrics;
use crate::provider_sockets::DriverSockets;
use crate::readiness::Readiness;
use crate::resolver::Requests;

/// How long a driver that is being replaced is waited for; well within the pod's grace period, 60 s.
const LEAVE_PATIENCE: Duration = Duration::from_secs(25);
/// How long tasks may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long the rest of the audit log may take to be written.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// Threads for what blocks: files, the start of a server.
const BLOCKING_THREADS: usize = 16;
/// How long such a thread is kept without work: less than until free pages are given back, its stack among them.
const KEPT_IDLE: Duration = Duration::from_millis(500);
const _: () = assert!(KEPT_IDLE.as_millis() < QUIET.as_millis());

/// What this process does before it knows its configuration: it serves on what a former worker served.
pub struct Begun {
    keeper: Keeper,
    instance: String,
    served: ServedOn,
    memory: Arc<LockedMemory>,
    counted: Arc<AgentMetrics>,
    clock: Arc<dyn Clock>,
    audit: AuditLog,
    held_back: HeldBack,
}

impl Begun {
    /// Serves on what was left.
    #[must_use]
    pub fn with(taken: TakenUp, arguments: &ServeArguments) -> Self {
        let TakenUp { keeper, kept, instance, restarts } = taken;
        let counted: Arc<AgentMetrics> = Arc::default();
        counted.worker_restarts.inc_by(restarts);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (audit, held_back) = AuditLog::held_back(Arc::clone(&clock));
        let audit = audit.counting(Arc::clone(&counted));
        let memory = Arc::new(match arguments.no_memfd_secret {
            true => LockedMemory::without_memfd_secret(),
            false => LockedMemory::new(),
        });
        let served = ServedOn::begin(kept, &keeper, &*memory, &audit);
        // With nothing to serve, one that ends before it is ready is no better for being started at once.
        if served.count() > 0
            && let Err(error) = keeper.alive()
        {
            tracing::warn!(%error, "the supervisor can't be told that this process lives");
        }
        Self { keeper, instance, served, memory, counted, clock, audit, held_back }
    }
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// A part could not be started.
pub fn run(
    config: Config,
    node: NodeName,
    arguments: &ServeArguments,
    begun: Begun,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEPT_IDLE)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(serve(config, node, arguments, begun))?;
    // Not for what blocks for ever: a server of a volume ends with the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn serve(
    config: Config,
    node: NodeName,
    arguments: &ServeArguments,
    begun: Begun,
) -> anyhow::Result<()> {
    let Config { stores, limits, refresh, tokens, classes, audit, driver, metrics, sidecar } =
        config;
    let Begun { keeper, instance, served, memory, counted, clock, audit: log, held_back } = begun;
    write_audit(held_back, audit)?;
    let audit = log;
    let drain = Drain::new();
    let readiness = Readiness::new(drain.clone());
    let audiences = stores.audiences().into_iter().cloned().collect();
    let surroundings = surroundings(classes, &node, &driver, audiences, &drain).await?;
    let (volume_limit, shortages) = Room::here().for_volumes(limits.volumes);
    for shortage in shortages {
        tracing::warn!(%shortage, "the machine has less than the configuration asks for");
    }
    let (links, calls) = DriverCalls::channel();
    let sockets: Arc<dyn ProviderSockets> = Arc::new(DriverSockets(calls.clone()));
    let stores = Arc::new(stores.with_provider_sockets(&sockets));
    let volumes = Volumes::new(Services {
        node,
        classes: surroundings.classes,
        reporter: surroundings.reporter,
        reviews: Reviews { cluster: surroundings.view, stores: tokens.review },
        settings: Arc::new(Settings::new(Arc::clone(&stores), limits, refresh)),
        verifier: TokenVerifier::new(tokens.keys, tokens.issuer, tokens.leeway, Arc::clone(&clock)),
        memory: Arc::clone(&memory) as _,
        audit: audit.clone(),
        metrics: Arc::clone(&counted),
        keeper: keeper.clone(),
        clock,
        volume_limit,
        driver: calls.clone(),
        deadlines: Deadlines::default(),
        drain: drain.clone(),
    });
    let restored = volumes.restore(served, Vec::new())?;
    tracing::info!(restored, "volumes that an earlier worker served are served on");
    drain.spawn(volumes.tidy().run(drain.clone()));
    drain.spawn(say_alive(keeper, drain.clone()));
    answer_questions(&arguments.admin, &readiness, &volumes, &drain);
    if let Some(address) = metrics {
        let sampled = sampled(&volumes, volume_limit.count, &audit, &memory);
        let scrape = scrape(&counted, sampled, calls.clone());
        metrics::serve(address, scrape, &drain)
            .await
            .with_context(|| format!("metrics can't be answered at {address} (metrics.address)"))?;
    }
    let leave = Leave::default();
    let pods = surroundings.membership.as_ref().map(|it| it.sidecars(sidecar.images));
    let link = DriverLink::new(
        driver::endpoint(&driver, instance),
        Requests::new(volumes.clone(), stores, pods),
        links,
        readiness,
        volumes.standby(),
        leave.clone(),
        drain.clone(),
    );
    drain.spawn(link.run());
    tracing::info!("started");
    drain::termination_signal().await.context("signals can't be received")?;
    tracing::info!(volumes = volumes.count(), "shutting down");
    if volumes.count() > 0 && !leave.ask(LEAVE_PATIENCE).await {
        tracing::warn!("shutting down though the driver doesn't say that it holds every volume");
    }
    if let Err(error) = drain.finish(DRAIN_DEADLINE).await {
        tracing::warn!(%error, "shutting down without them");
    }
    if !audit.flush(FLUSH_DEADLINE).await {
        tracing::warn!("the end of the audit log was not written in time");
    }
    Ok(())
}

/// What is read when somebody asks.
fn sampled(
    volumes: &Volumes,
    limit: usize,
    audit: &AuditLog,
    memory: &LockedMemory,
) -> Vec<Sample> {
    let gauge = |name, help, read: Box<dyn Fn() -> f64 + Send + Sync>| Sample {
        name,
        help,
        label: None,
        read,
    };
    let (volumes, audit) = (volumes.clone(), audit.clone());
    let mut samples = vec![
        gauge(
            "volumes",
            "Volumes, in preparation or served",
            Box::new(move || volumes.count() as f64),
        ),
        gauge("volumes_limit", "Most volumes of this node", Box::new(move || limit as f64)),
        gauge(
            "audit_records_lost",
            "Audit records lost since the last line that told of some",
            Box::new(move || audit.lost() as f64),
        ),
    ];
    for (protection, name) in [
        (Protection::MemfdSecret, "memfd_secret"),
        (Protection::Locked, "locked"),
        (Protection::Unlocked, "unlocked"),
    ] {
        let counts = memory.counts();
        samples.push(Sample {
            name: "secret_mappings",
            help: "Mappings that hold secret values",
            label: Some(("protection", name)),
            read: Box::new(move || counts.alive(protection) as f64),
        });
    }
    samples
}

fn scrape(counted: &AgentMetrics, sampled: Vec<Sample>, driver: DriverCalls) -> metrics::Scrape {
    let registry = Arc::new(counted.registry(sampled));
    Arc::new(move || {
        let (registry, driver) = (Arc::clone(&registry), driver.clone());
        Box::pin(async move {
            let own = sotto_runtime::metrics::text(&registry);
            match driver.metrics().await {
                Ok(its) => sotto_runtime::metrics::joined(own, &its),
                Err(error) => {
                    tracing::debug!(%error, "a scrape is without the driver's part");
                    own
                }
            }
        })
    })
}

/// Tells the supervisor that this process doesn't hang.
async fn say_alive(keeper: Keeper, drain: Drain) {
    let mut ticks = tokio::time::interval(ALIVE_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.begun() => return,
        }
        if let Err(error) = keeper.alive() {
            tracing::warn!(%error, "the supervisor can't be told that this process lives");
        }
    }
}

fn answer_questions(admin: &str, readiness: &Readiness, volumes: &Volumes, drain: &Drain) {
    match Admin::bind(admin) {
        Ok(admin) => {
            let refresher = Refresher::of(volumes);
            drain.spawn(admin.run(readiness.clone(), refresher, drain.clone()));
        }
        // Another agent on a machine for development; in a pod nobody else can have it.
        Err(error) => {
            tracing::warn!(%error, admin, "the admin socket is taken: no probe is answered")
        }
    }
}

fn write_audit(held_back: HeldBack, output: AuditOutput) -> Result<(), AuditError> {
    match output {
        AuditOutput::Stdout => held_back.write_to(BufWriter::new(std::io::stdout())),
        AuditOutput::File(file) => held_back.write_to(BufWriter::new(file)),
        AuditOutput::None => {
            tracing::warn!("nothing is on record: neither opens nor fetches (audit.output: none)");
            held_back.discard();
            Ok(())
        }
    }
}

/// Where classes come from and reports go.
struct Surroundings {
    classes: Arc<dyn ClassSource>,
    reporter: Arc<dyn PodReporter>,
    view: Arc<dyn ClusterView>,
    membership: Option<Membership>,
}

async fn surroundings(
    classes: ClassesFrom,
    node: &NodeName,
    driver: &Driver,
    audiences: Vec<Audience>,
    drain: &Drain,
) -> anyhow::Result<Surroundings> {
    match classes {
        ClassesFrom::Directory(directory) => {
            report(&directory).await;
            let (classes, reporter) = (Arc::new(directory), Arc::new(NoReports));
            let view = Arc::new(NoCluster);
            Ok(Surroundings { classes, reporter, view, membership: None })
        }
        ClassesFrom::Cluster(source) => {
            let membership = Membership::join(&source, node, drain)
                .await
                .context("the API server can't be used, and classes.directory is not set")?;
            membership.check_driver(driver.name.clone(), audiences, drain);
            let (classes, reporter) = (membership.classes(), membership.reporter());
            let view = membership.view();
            Ok(Surroundings { classes, reporter, view, membership: Some(membership) })
        }
    }
}

/// A manifest that can't be used is no reason not to serve the others.
async fn report(classes: &crate::classes::ClassDirectory) {
    if let Err(error) = classes.check().await {
        tracing::warn!(%error, "no class can be used at present");
    }
}
