//! Volumes over a fake store, a fake source of classes and a socket in the kernel's place; tokens, grammar,
//! snapshots and the FUSE server are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::Value;
use sotto_core::class::SecretProviderClass;
use sotto_core::clock::FixedClock;
use sotto_core::identity::{ClassName, Namespace, NodeName, StoreName};
use sotto_core::limits::Limits;
use sotto_core::rotation::{OnRevoke, RefreshPolicy};
use sotto_handoff::link::Handler;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Pod, Prepare, Prepared, Release, Token};
use sotto_handoff::refusal::Refusal;
use sotto_runtime::drain::Drain;
use sotto_runtime::memory::{LockedMemory, MemoryCounts, Protection};
use sotto_store::Stores;
use sotto_store::config::{AllowConfig, AuthConfig, AuthMethod, StoreConfig, StoreKind};
use tempfile::TempDir;

use super::super::{Deadlines, Services, Settings, VolumeLimit, Volumes};
use super::fake_store::FakeStore;
use super::reports::Reports;
use crate::audit::AuditLog;
use crate::classes::{ClassError, ClassSource, LookUp};
use crate::cluster::{NoCluster, Reviews};
use crate::driver::DriverCalls;
use crate::token::testing::{ISSUER, NOW, Signer, key_set, pod, token_map};
use crate::token::{FileKeys, Keys, TokenVerifier};
use sotto_handoff::link::Link;
use sotto_runtime::metrics::{self, AgentMetrics};
use tokio::sync::watch;

const REFRESH: RefreshPolicy = RefreshPolicy {
    interval: Duration::from_secs(3_600),
    max_stale: Duration::from_secs(3_600),
    on_revoke: OnRevoke::Close,
};
pub(super) const SOON: Duration = Duration::from_secs(10);
const OBJECTS: &str = "
- {objectName: username, secretPath: secret/data/payments/db, secretKey: username}
- {objectName: password, secretPath: secret/data/payments/db, secretKey: password}
";

const ONE_OBJECT: &str =
    "- {objectName: password, secretPath: secret/data/payments/db, secretKey: password}";

pub(super) struct Fixture {
    pub(super) volumes: Volumes,
    pub(super) store: Arc<FakeStore>,
    pub(super) signer: Signer,
    pub(super) drain: Drain,
    pub(super) memory: Arc<MemoryCounts>,
    pub(super) reports: Arc<Reports>,
    pub(super) links: watch::Sender<Option<Link>>,
    metrics: Arc<AgentMetrics>,
    audit: AuditLog,
    lines: Receiver<Value>,
    _keys: TempDir,
}

pub(super) fn fixture() -> Fixture {
    fixture_of(Limits::default())
}

pub(super) fn fixture_of(limits: Limits) -> Fixture {
    fixture_with(limits, Deadlines::default())
}

pub(super) fn fixture_with(limits: Limits, deadlines: Deadlines) -> Fixture {
    fixture_refreshing(limits, deadlines, REFRESH)
}

pub(super) fn fixture_refreshing(
    limits: Limits,
    deadlines: Deadlines,
    refresh: RefreshPolicy,
) -> Fixture {
    let signer = Signer::ec("k1");
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("jwks.json");
    std::fs::write(&file, key_set(&[signer.jwk()])).unwrap();
    let clock = Arc::new(FixedClock(NOW));
    let store = Arc::new(FakeStore::default());
    let (lines, read) = channel();
    let audit = AuditLog::start(Lines(lines), Arc::clone(&clock) as _).unwrap();
    let memory = LockedMemory::new();
    let (counts, drain) = (memory.counts(), Drain::new());
    let reports = Arc::new(Reports::default());
    let (links, driver) = DriverCalls::channel();
    let counted: Arc<AgentMetrics> = Arc::default();
    let reviews = Reviews { cluster: Arc::new(NoCluster), stores: BTreeSet::new() };
    let volumes = Volumes::new(Services {
        reviews,
        metrics: Arc::clone(&counted),
        keeper: sotto_supervisor::Keeper::default(),
        node: NodeName::parse("node-1").unwrap(),
        classes: Arc::new(Classes),
        reporter: Arc::clone(&reports) as _,
        settings: Arc::new(Settings::new(Arc::new(stores(Arc::clone(&store))), limits, refresh)),
        verifier: TokenVerifier::new(
            Keys::File(FileKeys::new(file)),
            ISSUER.to_owned(),
            Duration::from_secs(10),
            Arc::clone(&clock) as _,
        ),
        memory: Arc::new(memory),
        audit: audit.clone(),
        clock,
        volume_limit: VolumeLimit { count: limits.volumes, remedy: "raise limits.volumes" },
        driver,
        deadlines,
        drain: drain.clone(),
    });
    let (memory, lines, metrics) = (counts, read, counted);
    Fixture {
        volumes,
        store,
        signer,
        drain,
        memory,
        reports,
        links,
        metrics,
        audit,
        lines,
        _keys: keys,
    }
}

impl Fixture {
    pub(super) fn message(&self, volume: &str) -> Prepare {
        let pod = pod();
        Prepare {
            volume_id: volume.to_owned(),
            pod: Some(Pod {
                namespace: pod.namespace.into(),
                name: pod.pod_name.into(),
                uid: pod.pod_uid.into(),
                service_account: pod.service_account.into(),
                node: pod.node.into(),
            }),
            secret_provider_class: "payments-db".to_owned(),
            service_account_tokens: token_map("bao", &self.signer.mint("bao")),
            ..Prepare::default()
        }
    }

    pub(super) async fn prepare(&self, volume: &str) -> Result<Prepared, Refusal> {
        self.prepare_with(self.message(volume)).await
    }

    pub(super) async fn prepare_with(&self, message: Prepare) -> Result<Prepared, Refusal> {
        match self.volumes.handle(Body::Prepare(message), None).await?.body {
            Body::Prepared(prepared) => Ok(prepared),
            other => panic!("not an answer to Prepare: {other:?}"),
        }
    }

    pub(super) async fn release(&self, volume: &str) -> Result<(), Refusal> {
        let body = Body::Release(Release { volume_id: volume.to_owned() });
        let answer = self.volumes.handle(body, None).await?;
        assert!(matches!(answer.body, Body::Released(_)));
        Ok(())
    }

    pub(super) async fn token(&self, volume: &str, tokens: Vec<u8>) -> Result<(), Refusal> {
        let token = Token {
            volume_id: volume.to_owned(),
            service_account_tokens: tokens,
            ..Token::default()
        };
        self.volumes.handle(Body::Token(token), None).await.map(drop)
    }

    /// A metric of a scrape, by its line's beginning; 0 if it isn't there.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let text = metrics::text(&self.metrics.registry(Vec::new()));
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or(0)
    }

    /// `action decision` of each audit record so far.
    pub(super) async fn audited(&self) -> Vec<String> {
        assert!(self.audit.flush(SOON).await);
        let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        self.lines
            .try_iter()
            .map(|line| format!("{} {}", text(&line, "action"), text(&line, "decision")))
            .collect()
    }

    pub(super) fn mappings(&self) -> usize {
        let kinds = [Protection::MemfdSecret, Protection::Locked, Protection::Unlocked];
        kinds.map(|kind| self.memory.alive(kind)).iter().sum()
    }

    /// Waits until no volume is left.
    pub(super) async fn emptied(&self) {
        let emptied = async {
            while self.volumes.count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, emptied).await.expect("a volume is left");
    }
}

struct Lines(Sender<Value>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(serde_json::from_slice(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Knows `payments-db`, which is good, `with-copies`, which asks for more than there is, and `skip-verify`,
/// which its grammar refuses.
struct Classes;

impl ClassSource for Classes {
    fn class<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUp<'a> {
        let (namespace, name) = (namespace.clone(), name.clone());
        Box::pin(async move {
            let mut parameters: BTreeMap<_, _> =
                [("roleName", "payments"), ("objects", OBJECTS)].map(owned).into();
            match name.as_str() {
                "payments-db" => {}
                "one-secret" => parameters.extend([owned(("objects", ONE_OBJECT))]),
                "with-copies" => parameters.extend([owned(("baoAddres", "x"))]),
                "skip-verify" => parameters.extend([owned(("vaultSkipTLSVerify", "true"))]),
                _ => return Err(ClassError::Unknown { namespace, name }),
            }
            let wants_secret_objects = name.as_str() == "with-copies";
            Ok(Arc::new(SecretProviderClass {
                namespace,
                name,
                provider: "vault".to_owned(),
                parameters,
                wants_secret_objects,
            }))
        })
    }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn stores(store: Arc<FakeStore>) -> Stores {
    let config = StoreConfig {
        name: "main".to_owned(),
        kind: StoreKind::OpenBao,
        address: "https://bao.example:8200".to_owned(),
        standbys: Vec::new(),
        ca: "/ca.pem".into(),
        server_name: None,
        client_certificate: None,
        client_key: None,
        namespace: None,
        auth: AuthConfig {
            method: AuthMethod::Jwt,
            mount: None,
            role: None,
            audience: "bao".to_owned(),
        },
        allow: AllowConfig { namespaces: vec!["payments".to_owned()], service_accounts: vec![] },
    };
    let settings = config.check().unwrap();
    Stores::of(vec![(settings, store)], Some(StoreName::parse("main").unwrap()))
}
