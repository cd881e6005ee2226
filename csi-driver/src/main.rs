//! `sotto-csi`: confines itself, starts the driver, ends it on SIGTERM. Or: a probe, a rotation's helper.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sotto_csi::app::{App, StartError};
use sotto_csi::cli::{Cli, Command, Serve};
use sotto_csi::settings::{Faults, Settings};
use sotto_csi::target::{KubeletDir, TargetPath};
use sotto_csi::{confinement, mount_health, probe, rotation};
use sotto_runtime::allocator::WipingAllocator;
use sotto_runtime::{EXIT_CONFIGURATION, drain, hardening, telemetry};

/// Tokens pass through buffers of the gRPC library; freed, they are wiped.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Threads of the driver: it waits more than it works.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_CONFIGURATION } else { 0 });
        }
    };
    let done = match (cli.command, cli.serve) {
        (Some(Command::Probe { endpoint }), _) => ask(&endpoint),
        (Some(Command::RotationHelper { kubelet_dir, target }), _) => {
            open_as_helper(&kubelet_dir, &target)
                .and_then(|mount| Ok(rotation::perform(mount, std::io::stdin())?))
        }
        (Some(Command::MountHealth { kubelet_dir, target }), _) => {
            return match open_as_helper(&kubelet_dir, &target).map(mount_health::ask) {
                Ok(Ok(true)) => ExitCode::from(mount_health::DEAD),
                Ok(Ok(false)) => ExitCode::SUCCESS,
                Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
            };
        }
        (None, Some(arguments)) => serve(arguments),
        (None, None) => Err(anyhow::anyhow!("--node-name is missing")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit_status(&error))
        }
    }
}

fn serve(arguments: Serve) -> anyhow::Result<()> {
    confinement::confine(arguments.agent_gid)?;
    telemetry::init(&arguments.log)?;
    let open_files = hardening::raise_open_files().context("the limit of open files")?;
    let settings = Settings::check(arguments, open_files)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let app = App::start(settings).await?;
        drain::termination_signal().await?;
        tracing::info!("leaving");
        app.leave().await.context("calls were cut off")
    })
}

fn ask(endpoint: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(probe::probe(endpoint))?)
}

/// A helper holds nothing but the mount it works on.
fn open_as_helper(kubelet_dir: &Path, target: &Path) -> anyhow::Result<OwnedFd> {
    confinement::confine_helper()?;
    let kubelet = KubeletDir::open(kubelet_dir).context("the kubelet directory")?;
    kubelet.open_mounted(&TargetPath::from_relative(target)?).context("the mount")
}

fn exit_status(error: &anyhow::Error) -> u8 {
    let configuration = error.is::<Faults>()
        || error.is::<telemetry::TelemetryError>()
        || error.downcast_ref::<StartError>().is_some_and(StartError::is_configuration);
    if configuration { EXIT_CONFIGURATION } else { 1 }
}

#[expect(clippy::print_stderr, reason = "the log may not be set up yet, and a helper's is a pipe")]
fn complain(error: &anyhow::Error) {
    eprintln!("sotto-csi: {error:#}");
}
