//! What the demo saw, for people and for machines. Values are the fake ones that it made itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use sotto_core::attributes::SERVICE_ACCOUNT_TOKENS;

use super::Mode;
use super::class::Class;
use super::isolation::Isolation;
use super::live::Live;
use super::reader::{self, Seen};
use super::search::Search;
use super::socket::{self, Attempt};
use super::stage::Stage;
use crate::kubelet::KubeletError;
use crate::node::may_become;
use crate::store::{Operation, Peer, SERVER_NAME};
use crate::test_store::TestStore as _;

/// The user of a container that reads the volume.
const READER: (u32, u32) = (1000, 2000);
const AUDIT_DEADLINE: Duration = Duration::from_secs(5);

/// Everything that is shown.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) mode: Mode,
    pub(super) pod: PodView,
    pub(super) claims: Value,
    pub(super) class: Class,
    pub(super) store: StoreView,
    pub(super) volume: VolumeView,
    pub(super) seen: Seen,
    pub(super) live: Live,
    pub(super) audit: Vec<Value>,
    pub(super) intruder: Intruder,
    /// In sidecar mode: who tried the pod's socket.
    pub(super) socket: Vec<Attempt>,
    pub(super) processes: Vec<ProcessView>,
    /// In sidecar mode.
    pub(super) search: Option<Search>,
    /// What could not be dropped or done here, in words.
    pub(super) notes: Vec<String>,
    /// Commands by which to look further, with what each shows.
    pub(super) look: Vec<(String, String)>,
    pub(super) milliseconds: u128,
}

#[derive(Debug, Serialize)]
pub(super) struct PodView {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) service_account: String,
}

#[derive(Debug, Serialize)]
pub(super) struct StoreView {
    pub(super) name: &'static str,
    pub(super) address: String,
    pub(super) server: &'static str,
    pub(super) tls: Peer,
    pub(super) logins: usize,
    pub(super) reads: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct VolumeView {
    pub(super) driver: String,
    pub(super) target: String,
    pub(super) shown_at: String,
    /// From /proc/self/mountinfo.
    pub(super) mount: String,
}

/// A pod that asks for what isn't its own.
#[derive(Debug, Serialize)]
pub(super) struct Intruder {
    pub(super) pod: String,
    pub(super) service_account: String,
    pub(super) error: String,
    /// Whether its target is in the mount table.
    pub(super) mounted: bool,
}

/// A process and what it may.
#[derive(Debug, Serialize)]
pub(super) struct ProcessView {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    pub(super) uid: String,
    /// `CapEff`.
    pub(super) capabilities: String,
}

impl Report {
    /// Looks at everything once.
    pub(super) async fn look(
        stage: &Stage,
        isolation: Isolation,
        begun: Instant,
    ) -> anyhow::Result<Self> {
        let names = stage.class.objects.iter().map(|object| object.object_name.as_str());
        let seen = read(stage, names).await?;
        let store = store(stage)?;
        let (intruder, socket) = intruder(stage).await?;
        let live = Live::show(stage, &seen).await?;
        let audit = audit(stage, &seen).await?;
        let mut notes = stage.node.kept_privileges();
        if !may_become(READER.0) {
            notes.push(
                "the files were read by this process's own uid, and the pod is without its fsGroup: \
                 the user namespace has no other"
                    .to_owned(),
            );
        }
        let search = Search::of(stage).await?;
        Ok(Self {
            mode: stage.mode,
            pod: PodView {
                name: format!("{}/{}", stage.pod.namespace, stage.pod.name),
                uid: stage.pod.uid.clone(),
                service_account: stage.pod.service_account.clone(),
            },
            claims: claims(stage)?,
            class: stage.class.clone(),
            store,
            volume: volume(stage),
            seen,
            live,
            audit,
            intruder,
            socket,
            processes: processes(stage),
            search,
            notes,
            look: look_further(stage, isolation),
            milliseconds: begun.elapsed().as_millis(),
        })
    }
}

/// What the container's user sees, and reads in these files.
pub(super) async fn read(stage: &Stage, names: impl Iterator<Item = &str>) -> anyhow::Result<Seen> {
    let user = may_become(READER.0).then_some(READER);
    reader::read_as(user, &stage.node.path("bin/sotto-dev"), &stage.secrets, names).await
}

/// The claims of the token that kubelet sent, or wrote for the sidecar.
fn claims(stage: &Stage) -> anyhow::Result<Value> {
    if let Some(injected) = &stage.injected {
        return of_token(&std::fs::read_to_string(injected.token_directory().join("token"))?);
    }
    let volume = stage.pod.volumes.first().context("the example's pod has a volume")?;
    let request = stage.node.kubelet().request(&stage.pod, volume);
    let tokens = request.secrets.get(SERVICE_ACCOUNT_TOKENS).context("no token was sent")?;
    let tokens: Value = serde_json::from_str(tokens)?;
    of_token(tokens["bao"]["token"].as_str().context("no token for the store was sent")?)
}

fn of_token(token: &str) -> anyhow::Result<Value> {
    let claims = token.split('.').nth(1).context("the token has no claims")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}

fn store(stage: &Stage) -> anyhow::Result<StoreView> {
    let requests = stage.store.requests();
    let login = requests.iter().rfind(|request| request.operation == Operation::Login);
    Ok(StoreView {
        name: "main",
        address: stage.store.access().url(),
        server: SERVER_NAME,
        tls: (*login.context("the store saw no login")?.peer).clone(),
        logins: stage.store.count(Operation::Login),
        reads: stage.store.count(Operation::Read),
    })
}

fn volume(stage: &Stage) -> VolumeView {
    VolumeView {
        driver: stage.pod.volumes.first().map(|it| it.driver.clone()).unwrap_or_default(),
        target: stage.target.display().to_string(),
        mount: mount_options(&stage.target).unwrap_or_default(),
        shown_at: stage.secrets.display().to_string(),
    }
}

/// The audit records, once every file's open and the refusals are among them; in sidecar mode those of the sidecar and
/// of sotto-node.
async fn audit(stage: &Stage, seen: &Seen) -> anyhow::Result<Vec<Value>> {
    // Once more when its value was new, and when it was readable again.
    let files = stage.class.objects.len() + 2;
    // A second pod's refused fetch is in its own sidecar's log.
    let fetches = if stage.injected.is_some() { 0 } else { 1 };
    let complete = |records: &[Value]| {
        let of = |action: &'static str, decision: &'static str| {
            records.iter().filter(move |it| it["action"] == action && it["decision"] == decision)
        };
        let opened = of("open", "allowed").filter(|it| it["uid"] == seen.uid).count();
        opened >= files
            && of("open", "denied").count() > 0
            && of("fetch", "denied").count() > fetches
    };
    let awaited = "an open of each file and each refusal";
    let Some(injected) = &stage.injected else {
        return Ok(stage.node.audited(awaited, AUDIT_DEADLINE, complete).await?);
    };
    let mut records = injected.audited(awaited, AUDIT_DEADLINE, complete).await?;
    records.retain(|record| !stage.has_looked(record));
    records.extend(stage.node.audit());
    records.sort_by(|one, other| one["time"].as_str().cmp(&other["time"].as_str()));
    Ok(records)
}

/// A pod of the same namespace and another service account asks for the same class; in sidecar mode one of its
/// processes tries the socket of the demo's pod as well.
async fn intruder(stage: &Stage) -> anyhow::Result<(Intruder, Vec<Attempt>)> {
    let pod = stage.pod.sibling("web-0", "web");
    let name = format!("{}/{}", pod.namespace, pod.name);
    if stage.injected.is_some() {
        let mut injected = stage.start_injected(&pod).await?;
        let denied = |it: &Value| it["action"] == "fetch" && it["decision"] == "denied";
        let records = injected
            .audited("the store's refusal", AUDIT_DEADLINE, |all| all.iter().any(denied))
            .await?;
        let reason = records.iter().find(|record| denied(record));
        let error = reason.and_then(|it| it["reason"].as_str()).unwrap_or_default().to_owned();
        // Its application's container would be created only after this.
        let mounted = injected.probe(&stage.node).await?.is_none();
        let socket = socket::try_by(stage, &injected).await?;
        injected.end(&stage.node).await?;
        let service_account = pod.service_account;
        return Ok((Intruder { pod: name, service_account, error, mounted }, socket));
    }
    let volume = pod.volumes.first().context("the example's pod has a volume")?;
    let error = match stage.node.kubelet().publish(&pod, volume).await {
        Err(KubeletError::Refused { message, .. }) => message,
        Err(error) => return Err(error.into()),
        Ok(_) => anyhow::bail!("a pod with another service account was given the secrets"),
    };
    let target = stage.node.kubelet().target(&pod, volume);
    let mounted = mount_options(&target).is_some();
    let service_account = pod.service_account;
    Ok((Intruder { pod: name, service_account, error, mounted }, Vec::new()))
}

/// The processes of the node, with their workers.
pub(super) fn node_processes(stage: &Stage) -> Vec<(&'static str, u32)> {
    let node = &stage.node;
    let mut found = vec![("sotto-csi", node.csi().pid()), ("sotto-node", node.agent().pid())];
    found.extend(node.worker().map(|worker| ("its worker", worker)));
    found
}

fn processes(stage: &Stage) -> Vec<ProcessView> {
    let view = |name, pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("unknown").to_owned()
        };
        ProcessView { name, pid, uid: field("Uid:"), capabilities: field("CapEff:") }
    };
    let sidecar = stage.injected.as_ref().and_then(|injected| {
        let running = injected.running()?;
        let worker = injected.worker().map(|worker| ("its worker", worker));
        Some([Some(("sotto-agent", running.pid())), worker].into_iter().flatten())
    });
    let all = node_processes(stage).into_iter().chain(sidecar.into_iter().flatten());
    all.map(|(name, pid)| view(name, pid)).collect()
}

/// The options of what is mounted at `target`, if something is.
fn mount_options(target: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let target = target.display().to_string();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(target.as_str()));
    line.and_then(|line| line.split(' ').nth(5)).map(str::to_owned)
}

fn look_further(stage: &Stage, isolation: Isolation) -> Vec<(String, String)> {
    let pid = std::process::id();
    let enter = match isolation {
        Isolation::Root => format!("nsenter -t {pid} -m"),
        Isolation::UserNamespace => format!("nsenter -t {pid} -U -m --preserve-credentials"),
    };
    let reader = match isolation {
        Isolation::Root => format!("nsenter -t {pid} -m -S {} -G {}", READER.0, READER.1),
        Isolation::UserNamespace => enter.clone(),
    };
    let secrets = stage.secrets.display();
    let first = stage.class.objects.first().map_or("", |object| object.object_name.as_str());
    let command = |who: &str, what: String| format!("{who} {what}");
    vec![
        (command(&enter, format!("ls -lAR {secrets}")), "the volume".to_owned()),
        (
            command(&reader, format!("cat {secrets}/{first}")),
            "a secret; its audit record appears below".to_owned(),
        ),
        asking(stage, &enter),
        (
            command(&enter, format!("cat {}", stage.node.path("etc/config.yaml").display())),
            "sotto-node's configuration".to_owned(),
        ),
    ]
}

/// What an administrator asks of whoever serves the pod.
fn asking(stage: &Stage, enter: &str) -> (String, String) {
    let path = |name| stage.node.path(name).display().to_string();
    if let Some(injected) = &stage.injected {
        let command = format!(
            "{enter} {} probe --handoff={}",
            path("bin/sotto-agent"),
            injected.handoff_path().display()
        );
        return (command, "the startupProbe; refused, unless its process is of the pod".to_owned());
    }
    let command = format!(
        "{enter} {} refresh {}/{} --admin={}",
        path("bin/sotto-node"),
        stage.pod.namespace,
        stage.pod.name,
        stage.node.admin()
    );
    (command, "has sotto-node ask the store again, now".to_owned())
}
