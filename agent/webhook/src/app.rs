//! The parts of the webhook put together; logic knows neither this nor `main`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sotto_runtime::drain::{self, Drain};

use crate::admin::{Admin, Readiness};
use crate::certificate::{Certificate, Files};
use crate::server::Server;
use crate::settings::Settings;

/// How long calls still come after the end was announced: endpoints are taken out by and by.
const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// How long tasks may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the certificate's files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A part could not be started.
pub fn run(
    settings: Settings,
    files: Files,
    address: SocketAddr,
    admin: &str,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(serve(settings, files, address, admin))
}

async fn serve(
    settings: Settings,
    files: Files,
    address: SocketAddr,
    admin: &str,
) -> anyhow::Result<()> {
    let certificate = Arc::new(Certificate::load(files)?);
    let readiness = Readiness::new(Arc::clone(&certificate));
    let drain = Drain::new();
    let server = Server::bind(address, Arc::clone(&certificate), settings, drain.clone()).await?;
    tracing::info!(address = %server.address()?, "started");
    drain.spawn(certificate.watch(RELOAD_INTERVAL, drain.clone()));
    match Admin::bind(admin) {
        Ok(admin) => drain.spawn(admin.run(readiness.clone(), drain.clone())),
        // Another webhook on a machine for development; in a pod nobody else can have it.
        Err(error) => {
            tracing::warn!(%error, admin, "the admin socket is taken: no probe is answered");
        }
    }
    drain.spawn(server.run());
    drain::termination_signal().await.context("signals can't be received")?;
    tracing::info!("shutting down");
    readiness.leave();
    tokio::time::sleep(LEAVE_AFTER).await;
    if let Err(error) = drain.finish(DRAIN_DEADLINE).await {
        tracing::warn!(%error, "shutting down without them");
    }
    Ok(())
}
