//! A driver in a process of this binary that makes one call of its own library and ends at a given moment of it.
//!
//! It says on its standard output when the call has ended, and how: a line `done <await points> <microseconds>
//! <result>`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use sotto_csi::app::App;
use sotto_csi::cli::Cli;
use sotto_csi::driver::Driver;
use sotto_csi::node::checks;
use sotto_csi::settings::Settings;
use sotto_csi::target::{KubeletDir, TargetPath};
use sotto_csi::{mount_health, publish, unpublish};
use sotto_proto::csi::v1::NodeUnpublishVolumeRequest;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::machine::{PATIENCE, request};
use crate::moment::{self, Counted, Moment};
use crate::seccomp;

pub(crate) const ROLE: &str = "play-the-driver";
pub(crate) const VOLUME: &str = "csi-1";
pub(crate) const POD: &str = "uid-1";

/// What the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Publish,
    /// Of a volume that it has published before.
    Republish,
    /// Of a volume that it has published before.
    Unpublish,
    /// Whatever happens once it has read a line.
    Wait,
}

impl Deed {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Republish => "republish",
            Self::Unpublish => "unpublish",
            Self::Wait => "wait",
        }
    }

    fn parse(word: &str) -> Self {
        let all = [Self::Publish, Self::Republish, Self::Unpublish, Self::Wait];
        all.into_iter().find(|deed| deed.word() == word).unwrap()
    }
}

struct Order {
    deed: Deed,
    moment: Moment,
    target: String,
}

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [deed, moment, number, target, line @ ..] = arguments else { panic!("{arguments:?}") };
    let moment = Moment::parse(moment, number);
    let order = Order { deed: Deed::parse(deed), moment, target: target.clone() };
    sotto_runtime::telemetry::init("debug").unwrap();
    let line = ["sotto-csi"].into_iter().chain(line.iter().map(String::as_str));
    let serve = Cli::try_parse_from(line).unwrap().serve.unwrap();
    let settings = Settings::check(serve, Some(4_096)).unwrap();
    // One thread: while a call is polled, nobody can bring what it is about to wait for.
    let mut runtime = Builder::new_current_thread();
    runtime.max_blocking_threads(1).on_thread_park(move || moment::pauses(moment)).enable_all();
    runtime.build().unwrap().block_on(play(order, settings));
    ExitCode::SUCCESS
}

async fn play(order: Order, settings: Settings) {
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let app = App::start(settings).await.unwrap();
    let driver = app.driver();
    driver.broker.wait(PATIENCE).await.unwrap();
    match order.deed {
        Deed::Publish => {}
        Deed::Republish | Deed::Unpublish => publish(driver, &order.target, "first").await.unwrap(),
        Deed::Wait => {
            wait(order.moment);
            std::future::pending::<()>().await;
        }
    }
    // As the service does: a call is a task that the end of the process waits for.
    driver.calls.spawn(call(Arc::clone(driver), order));
    terminated.recv().await;
    app.leave().await.unwrap();
}

async fn call(driver: Arc<Driver>, order: Order) {
    let Order { deed, moment, target } = order;
    let calls = if deed == Deed::Unpublish { seccomp::UNPUBLISH } else { seccomp::PUBLISH };
    match moment {
        Moment::Call(number) => seccomp::die_before(&calls[usize::try_from(number).unwrap()]),
        Moment::After(microseconds) => moment::die_after(microseconds),
        _ => {}
    }
    let begun = Instant::now();
    let work = async {
        match deed {
            Deed::Unpublish => unpublish(&driver, &target).await,
            _ => publish(&driver, &target, "second").await,
        }
    };
    let (result, points) = Counted::new(work, moment).await;
    println!("done {points} {} {result:?}", begun.elapsed().as_micros());
    if !matches!(moment, Moment::Leaving(at) if at <= points) {
        moment::die();
    }
}

async fn publish(driver: &Driver, target: &str, tokens: &str) -> Result<(), String> {
    let request = checks::publish(request(target.as_ref(), VOLUME, POD, tokens), driver).unwrap();
    publish::publish(driver, request).await.map_err(|error| error.to_string())
}

async fn unpublish(driver: &Driver, target: &str) -> Result<(), String> {
    let (volume_id, target_path) = (VOLUME.to_owned(), target.to_owned());
    let request = NodeUnpublishVolumeRequest { volume_id, target_path };
    let (id, target) = checks::unpublish(&request, driver).unwrap();
    unpublish::unpublish(driver, id, target).await.map_err(|error| error.to_string())
}

/// The moment is counted from the next line of the standard input.
fn wait(moment: Moment) {
    std::thread::spawn(move || {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        match moment {
            Moment::After(microseconds) => moment::die_after(microseconds),
            _ => moment::count_pauses(),
        }
        println!("armed");
    });
}

/// The driver's helper process.
pub(crate) fn mount_health(arguments: &[String]) -> ExitCode {
    let [kubelet, target] = arguments else { panic!("{arguments:?}") };
    let kubelet = KubeletDir::open(kubelet.as_ref()).unwrap();
    let mount = kubelet.open_mounted(&TargetPath::from_relative(target.as_ref()).unwrap()).unwrap();
    match mount_health::ask(mount) {
        Ok(true) => ExitCode::from(mount_health::DEAD),
        Ok(false) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
