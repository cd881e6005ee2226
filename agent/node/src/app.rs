//! The parts of the agent put together; logic knows neither this nor `main`.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sotto_core::clock::{Clock, SystemClock};
use sotto_core::identity::{Audience, NodeName};
use sotto_runtime::drain::{self, Drain};
use sotto_runtime::memory::LockedMemory;
use sotto_volume::audit::AuditLog;
use sotto_volume::classes::ClassSource;
use sotto_volume::driver::DriverCalls;
use sotto_volume::reporter::{NoReports, PodReporter};
use sotto_volume::token::TokenVerifier;
use sotto_volume::volumes::{Deadlines, Services, Volumes};

use crate::admin::Admin;
use crate::cluster::Membership;
use crate::config::{AuditOutput, ClassesFrom, Config, Driver};
use crate::driver::DriverLink;
use crate::readiness::Readiness;

/// How long tasks may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long the rest of the audit log may take to be written.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// Threads for what blocks: files, the start of a server.
const BLOCKING_THREADS: usize = 16;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// A part could not be started.
pub fn run(config: Config, node: NodeName, admin: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(serve(config, node, admin))?;
    // Not for what blocks for ever: a server of a volume ends with the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn serve(config: Config, node: NodeName, admin: &str) -> anyhow::Result<()> {
    let Config { stores, limits, refresh, tokens, classes, audit, driver } = config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let audit = AuditLog::start(output(audit), Arc::clone(&clock))?;
    let drain = Drain::new();
    let readiness = Readiness::new(drain.clone());
    let audiences = stores.audiences().into_iter().cloned().collect();
    let surroundings = surroundings(classes, &node, &driver, audiences, &drain).await?;
    let (links, calls) = DriverCalls::channel();
    let volumes = Volumes::new(Services {
        node,
        classes: surroundings.classes,
        reporter: surroundings.reporter,
        stores: Arc::new(stores),
        verifier: TokenVerifier::new(tokens.keys, tokens.issuer, tokens.leeway, Arc::clone(&clock)),
        memory: Arc::new(LockedMemory::new()),
        audit: audit.clone(),
        clock,
        limits,
        refresh,
        driver: calls,
        deadlines: Deadlines::default(),
        drain: drain.clone(),
    });
    answer_probes(admin, &readiness, &drain);
    let link = DriverLink::new(driver, volumes.clone(), links, readiness, drain.clone());
    drain.spawn(linked(link, surroundings.membership, drain.clone()));
    tracing::info!("started");
    drain::termination_signal().await.context("signals can't be received")?;
    tracing::info!(volumes = volumes.count(), "shutting down");
    if let Err(error) = drain.finish(DRAIN_DEADLINE).await {
        tracing::warn!(%error, "shutting down without them");
    }
    if !audit.flush(FLUSH_DEADLINE).await {
        tracing::warn!("the end of the audit log was not written in time");
    }
    Ok(())
}

fn answer_probes(admin: &str, readiness: &Readiness, drain: &Drain) {
    match Admin::bind(admin) {
        Ok(admin) => drain.spawn(admin.run(readiness.clone(), drain.clone())),
        // Another agent on a machine for development; in a pod nobody else can have it.
        Err(error) => {
            tracing::warn!(%error, admin, "the admin socket is taken: no probe is answered")
        }
    }
}

fn output(audit: AuditOutput) -> Box<dyn Write + Send> {
    match audit {
        AuditOutput::Stdout => Box::new(BufWriter::new(std::io::stdout())),
        AuditOutput::File(file) => Box::new(BufWriter::new(file)),
    }
}

/// Where classes come from and reports go.
struct Surroundings {
    classes: Arc<dyn ClassSource>,
    reporter: Arc<dyn PodReporter>,
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
            Ok(Surroundings { classes, reporter, membership: None })
        }
        ClassesFrom::Cluster(source) => {
            let membership = Membership::join(&source, node, drain)
                .await
                .context("the API server can't be used, and classes.directory is not set")?;
            membership.check_driver(driver.name.clone(), audiences, drain);
            let (classes, reporter) = (membership.classes(), membership.reporter());
            Ok(Surroundings { classes, reporter, membership: Some(membership) })
        }
    }
}

async fn linked(link: DriverLink<Volumes>, membership: Option<Membership>, drain: Drain) {
    if let Some(membership) = membership {
        membership.settle(&drain).await;
    }
    link.run().await;
}

/// A manifest that can't be used is no reason not to serve the others.
async fn report(classes: &crate::classes::ClassDirectory) {
    if let Err(error) = classes.check().await {
        tracing::warn!(%error, "no class can be used at present");
    }
}
