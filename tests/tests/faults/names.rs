//! The store's name: it can't be resolved, and then it is another address. In mounts of its own, since a machine's
//! `/etc/hosts` and `/etc/resolv.conf` are everybody's.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use sotto_dev::process::{Program, Running};
use sotto_dev::test_store::TestStore;
use sotto_tests::metrics;
use sotto_tests::proxy::Proxy;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::Served;
use sotto_tests::table::{Milliseconds, Outcome};

/// Says to this binary that it has mounts of its own.
const APART: &str = "--in-mounts-of-its-own";
/// The row that [`is_lost_and_moves`] plays.
pub(crate) const ROW: &str = "39n";
const NAME: &str = "bao.sotto.test";
/// Nobody answers there.
const NO_SERVER: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
const OUTAGE: &str = "sotto_refreshes_total{store=\"main\",result=\"outage\"}";

pub(crate) async fn is_lost_and_moves() -> anyhow::Result<Outcome> {
    if std::env::args().any(|argument| argument == APART) { play().await } else { apart().await }
}

/// This row once more, by another process.
async fn apart() -> anyhow::Result<Outcome> {
    let unshare = Path::new("/usr/bin/unshare");
    if !unshare.exists() {
        return Ok(Outcome::not_here("needs unshare(1): util-linux"));
    }
    let this = std::env::current_exe()?.display().to_string();
    let row = format!("--row={ROW}");
    let arguments = ["--mount", "--propagation=private", &this, &row, APART];
    let played = Running::start(Program::new("unshare", unshare).arguments(arguments)).await?;
    let status = played.wait(Duration::from_secs(200)).await?;
    let text = played.log().text();
    let line = text.lines().find(|line| line.starts_with(&format!("| {ROW} |")));
    let cells: Vec<_> = line.with_context(|| text.clone())?.split('|').map(str::trim).collect();
    anyhow::ensure!(status.success() && cells.get(4) == Some(&"held"), "{text}");
    Ok(Outcome::held().noting(cells.get(6).context("no note")?))
}

/// What names there are.
struct Hosts(std::path::PathBuf);

impl Hosts {
    fn over(directory: &Path) -> anyhow::Result<Self> {
        let (hosts, resolver) = (directory.join("hosts"), directory.join("resolv.conf"));
        std::fs::write(&resolver, NO_SERVER)?;
        let names = Self(hosts);
        names.lead_to(Some("127.0.0.1"))?;
        rustix::mount::mount_bind(&names.0, "/etc/hosts")?;
        rustix::mount::mount_bind(&resolver, "/etc/resolv.conf")?;
        Ok(names)
    }

    /// In place: a bind shows the file, not its name.
    fn lead_to(&self, address: Option<&str>) -> std::io::Result<()> {
        let line = address.map(|address| format!("{address} {NAME}\n")).unwrap_or_default();
        std::fs::write(&self.0, format!("127.0.0.1 localhost\n{line}"))
    }
}

/// Waits until more outages were counted than these; returns how many.
async fn outage(scrape: std::net::SocketAddr, than: u64) -> anyhow::Result<u64> {
    let counted = async {
        loop {
            let text = metrics::scrape(scrape).await?;
            let told = text.lines().find_map(|line| line.strip_prefix(OUTAGE)?.trim().parse().ok());
            match told {
                Some(count) if count > than => return anyhow::Ok(count),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.context("no metric tells")?
}

async fn play() -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), permissions)?;
    let names = Hosts::over(directory.path())?;
    let (first, scrape) = (Proxy::start().await?, metrics::free_address()?);
    let port = first.address().port();
    let settings = StoreSettings::edited(move |config| {
        config["stores"][0]["address"] = format!("https://{NAME}:{port}").into();
        config["stores"][0]["serverName"] = "localhost".into();
        config["metrics"]["address"] = scrape.to_string().into();
    });
    let scene = Scene::embedded_with(settings).await?;
    let store = scene.store().access().address;
    first.lead_to(store);
    let mut served = Served::start(scene, 2, &[("sotto.dev/refresh", "1s")]).await?;
    let readers = served.readers(2)?;

    // A connection that is kept alive asks for no name.
    names.lead_to(None)?;
    first.cut();
    let before = outage(scrape, 0).await?;
    first.mend().await?;
    let connections = first.connections();
    let next = served.write().await?;
    // There is a way, and nobody finds it.
    outage(scrape, before).await?;
    anyhow::ensure!(first.connections() == connections, "it was reached without its name");
    names.lead_to(Some("127.0.0.1"))?;
    let begun = Instant::now();
    served.all_show(&next).await.context("with its name again")?;
    let named = begun.elapsed();

    let second = Proxy::at(std::net::SocketAddr::from(([127, 0, 0, 2], port))).await?;
    second.lead_to(store);
    first.cut();
    names.lead_to(Some("127.0.0.2"))?;
    let next = served.write().await?;
    let begun = Instant::now();
    served.all_show(&next).await.context("at another address")?;
    let moved = begun.elapsed();
    anyhow::ensure!(second.connections() > 0, "it was reached at its old address");
    served.judged(readers)?;
    served.stop().await?;
    let (named, moved) = (Milliseconds(named), Milliseconds(moved));
    Ok(Outcome::held().noting(format!(
        "recovered {named} after its name was back, {moved} after it had another address; 0 failed reads"
    )))
}
