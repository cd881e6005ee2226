//! What the demo saw, for people and for machines. Values are the fake ones that it made itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use sotto_core::attributes::SERVICE_ACCOUNT_TOKENS;

use super::class::Class;
use super::isolation::Isolation;
use super::live::Live;
use super::reader::{self, Seen};
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
    pub(super) pod: PodView,
    pub(super) claims: Value,
    pub(super) class: Class,
    pub(super) store: StoreView,
    pub(super) volume: VolumeView,
    pub(super) seen: Seen,
    pub(super) live: Live,
    pub(super) audit: Vec<Value>,
    pub(super) intruder: Intruder,
    pub(super) processes: Vec<ProcessView>,
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
        let intruder = intruder(stage).await?;
        let live = Live::show(stage, &seen).await?;
        let audit = audit(stage, &seen).await?;
        let mut notes = stage.node.kept_privileges();
        if !may_become(READER.0) {
            notes.push(
                "the files were read by this process's own uid, and the pod's group is shown as 65534: \
                 the user namespace has no other"
                    .to_owned(),
            );
        }
        Ok(Self {
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
            processes: processes(stage),
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

/// The claims of the token that kubelet sent.
fn claims(stage: &Stage) -> anyhow::Result<Value> {
    let volume = stage.pod.volumes.first().context("the example's pod has a volume")?;
    let request = stage.node.kubelet().request(&stage.pod, volume);
    let tokens = request.secrets.get(SERVICE_ACCOUNT_TOKENS).context("no token was sent")?;
    let tokens: Value = serde_json::from_str(tokens)?;
    let token = tokens["bao"]["token"].as_str().context("no token for the store was sent")?;
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

/// The audit records, once every file's open and the refusals are among them.
async fn audit(stage: &Stage, seen: &Seen) -> anyhow::Result<Vec<Value>> {
    // Once more when its value was new, and when it was readable again.
    let files = stage.class.objects.len() + 2;
    let complete = |records: &[Value]| {
        let of = |action: &'static str, decision: &'static str| {
            records.iter().filter(move |it| it["action"] == action && it["decision"] == decision)
        };
        let opened = of("open", "allowed").filter(|it| it["uid"] == seen.uid).count();
        opened >= files && of("open", "denied").count() > 0 && of("fetch", "denied").count() > 1
    };
    let awaited = "an open of each file and each refusal";
    Ok(stage.node.audited(awaited, AUDIT_DEADLINE, complete).await?)
}

/// A pod of the same namespace and another service account asks for the same class.
async fn intruder(stage: &Stage) -> anyhow::Result<Intruder> {
    let pod = stage.pod.sibling("web-0", "web");
    let volume = pod.volumes.first().context("the example's pod has a volume")?;
    let error = match stage.node.kubelet().publish(&pod, volume).await {
        Err(KubeletError::Refused { message, .. }) => message,
        Err(error) => return Err(error.into()),
        Ok(_) => anyhow::bail!("a pod with another service account was given the secrets"),
    };
    let target = stage.node.kubelet().target(&pod, volume);
    let name = format!("{}/{}", pod.namespace, pod.name);
    let mounted = mount_options(&target).is_some();
    Ok(Intruder { pod: name, service_account: pod.service_account, error, mounted })
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
    let agent = stage.node.agent().pid();
    let mut views = vec![view("sotto-csi", stage.node.csi().pid()), view("sotto-node", agent)];
    views.extend(stage.node.worker().map(|worker| view("its worker", worker)));
    views
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
        (
            command(
                &enter,
                format!(
                    "{} refresh {}/{} --admin={}",
                    stage.node.path("bin/sotto-node").display(),
                    stage.pod.namespace,
                    stage.pod.name,
                    stage.node.admin()
                ),
            ),
            "has sotto-node ask the store again, now".to_owned(),
        ),
        (
            command(&enter, format!("cat {}", stage.node.path("etc/config.yaml").display())),
            "sotto-node's configuration".to_owned(),
        ),
    ]
}
