//! Volumes of database credentials: leases that are renewed, rotated at their maximum and revoked with their pod.
//!
//! Model: the two files of one generation let somebody into the database, at any time; two volumes never show the same
//! user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use sotto_dev::bao::{Bao, jwt_role};
use sotto_dev::kubelet::Pod;
use sotto_dev::postgres::Postgres;
use sotto_tests::files::blocking;
use sotto_tests::scene::Scene;

const CLASS: &str = "database";
const FILES: [&str; 2] = ["username", "password"];
/// A lease's life, and the longest to which it is renewed: some volumes live for longer.
const LEASE: (&str, &str) = ("15s", "45s");
/// A login that is lost with a container that was killed ends so soon, and its leases with it.
const LOGIN_TTL: &str = "15s";
/// For a killed container's successor to show credentials of its own.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The database, and the volumes that show credentials of it.
pub(crate) struct Leased {
    pub(crate) postgres: Postgres,
    pub(crate) pods: Vec<Pod>,
    targets: Vec<PathBuf>,
}

impl Leased {
    /// A database that the store makes roles in, and a class that reads them.
    pub(crate) async fn start(scene: &Scene<Bao>) -> anyhow::Result<Self> {
        let postgres = Postgres::start().await?;
        let mut login = jwt_role();
        login["token_ttl"] = json!(LOGIN_TTL);
        scene.store().enable_database(&postgres, LEASE, login).await?;
        let objects = FILES.map(|key| {
            format!(
                "- {{objectName: {key}, secretPath: database/creds/payments, secretKey: {key}}}"
            )
        });
        scene.class(CLASS, &objects.join("\n"))?;
        Ok(Self { postgres, pods: Vec::new(), targets: Vec::new() })
    }

    pub(crate) async fn publish(
        &mut self,
        scene: &Scene<Bao>,
        number: usize,
    ) -> anyhow::Result<()> {
        let mut pod = scene.pod(&format!("ledger-{number}"), "ledger", CLASS);
        pod.volumes[0].attributes.insert("sotto.dev/refresh".to_owned(), "1h".to_owned());
        self.targets.push(scene.publish(&pod).await?);
        self.pods.push(pod);
        Ok(())
    }

    pub(crate) async fn unpublish(&mut self, scene: &Scene<Bao>, at: usize) -> anyhow::Result<()> {
        let (pod, target) = (self.pods.swap_remove(at), self.targets.swap_remove(at));
        scene.stop(&pod).await?;
        ensure!(sotto_tests::served::is_gone(&target)?, "{} is left", target.display());
        Ok(())
    }

    /// The user that a volume shows, who was let into the database.
    pub(crate) async fn check(&self, at: usize) -> anyhow::Result<String> {
        let target = &self.targets[at];
        let mut shown = credentials(target).await?;
        loop {
            let [user, password] = &shown;
            let refused = match self.postgres.ask(user, password, "SELECT current_user").await {
                Ok(said) => {
                    ensure!(said == *user, "connected as {said}, not as {user}");
                    return Ok(said);
                }
                Err(refused) => refused,
            };
            let now = credentials(target).await?;
            if now == shown {
                return Err(refused).with_context(|| format!("of {}", target.display()));
            }
            shown = now;
        }
    }

    /// The users of all volumes.
    pub(crate) async fn check_all(&self) -> anyhow::Result<Vec<String>> {
        let mut users = Vec::with_capacity(self.targets.len());
        for at in 0..self.targets.len() {
            let user = self.check(at).await?;
            ensure!(!users.contains(&user), "two volumes show {user}");
            users.push(user);
        }
        Ok(users)
    }

    /// Waits until no volume shows what it showed.
    pub(crate) async fn all_show_others_than(&self, before: &[String]) -> anyhow::Result<()> {
        let others = async {
            for (target, before) in self.targets.iter().zip(before) {
                while credentials(target).await?[0] == *before {
                    tokio::time::sleep(POLL).await;
                }
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(PATIENCE, others).await {
            Ok(shown) => shown,
            Err(_) => bail!("a killed container's credentials are shown for {PATIENCE:?}"),
        }
    }
}

/// Both of one generation.
async fn credentials(target: &Path) -> anyhow::Result<[String; 2]> {
    let target = target.to_owned();
    blocking(move || {
        let generation = target.join(std::fs::read_link(target.join("..data"))?);
        let [user, password] = FILES.map(|name| std::fs::read_to_string(generation.join(name)));
        Ok([user?, password?])
    })
    .await
}
