//! Volumes over a fake store, a fake source of classes and a socket in the kernel's place; tokens, grammar,
//! snapshots and the FUSE server are the real ones.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use sotto_core::class::SecretProviderClass;
use sotto_core::clock::FixedClock;
use sotto_core::identity::{Audience, ClassName, Namespace, NodeName, StoreName};
use sotto_core::limits::Limits;
use sotto_core::rotation::{OnRevoke, RefreshPolicy};
use sotto_core::secret::{SecretBytes, SecretString};
use sotto_core::snapshot::Object;
use sotto_handoff::link::Handler;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Pod, Prepare, Prepared, Release, Token};
use sotto_handoff::refusal::Refusal;
use sotto_runtime::drain::Drain;
use sotto_runtime::memory::{LockedMemory, MemoryCounts, Protection};
use sotto_store::config::{AllowConfig, AuthConfig, AuthMethod, StoreConfig, StoreKind};
use sotto_store::session::{LeaseId, Renewed, SecretSession, SecretStore, TokenLife};
use sotto_store::{Fetch, ObjectError, StoreError, StoreSession, Stores, VolumePlan};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::super::{Deadlines, Services, Volumes};
use super::reports::Reports;
use crate::audit::AuditLog;
use crate::classes::{ClassError, ClassSource, LookUp};
use crate::driver::DriverCalls;
use crate::token::testing::{ISSUER, NOW, Signer, key_set, pod, token_map};
use crate::token::{FileKeys, Keys, TokenVerifier};

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

pub(super) struct Fixture {
    pub(super) volumes: Volumes,
    pub(super) store: Arc<FakeStore>,
    pub(super) signer: Signer,
    pub(super) drain: Drain,
    pub(super) memory: Arc<MemoryCounts>,
    pub(super) reports: Arc<Reports>,
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
    let volumes = Volumes::new(Services {
        node: NodeName::parse("node-1").unwrap(),
        classes: Arc::new(Classes),
        reporter: Arc::clone(&reports) as _,
        stores: Arc::new(stores(Arc::clone(&store))),
        verifier: TokenVerifier::new(
            Keys::File(FileKeys::new(file)),
            ISSUER.to_owned(),
            Duration::from_secs(10),
            Arc::clone(&clock) as _,
        ),
        memory: Arc::new(memory),
        audit: audit.clone(),
        clock,
        limits,
        refresh: REFRESH,
        driver: DriverCalls::channel().1,
        deadlines,
        drain: drain.clone(),
    });
    let (memory, lines) = (counts, read);
    Fixture { volumes, store, signer, drain, memory, reports, audit, lines, _keys: keys }
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
        let token = Token { volume_id: volume.to_owned(), service_account_tokens: tokens };
        self.volumes.handle(Body::Token(token), None).await.map(drop)
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

/// A store that does what it is told to, and counts what it was asked.
pub(super) struct FakeStore {
    name: StoreName,
    audience: Audience,
    shared: Arc<Told>,
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) logins: AtomicUsize,
    pub(super) fetches: AtomicUsize,
    pub(super) revoked: AtomicUsize,
    pub(super) identities: Mutex<Vec<String>>,
    pub(super) refuse_login: Mutex<Option<StoreError>>,
    /// Errors by the object's name.
    pub(super) refuse: Mutex<BTreeMap<String, ObjectError>>,
    /// `Some`: a fetch waits for a permit.
    pub(super) hold_fetch: Mutex<Option<Arc<Semaphore>>>,
    pub(super) hold_login: Mutex<Option<Arc<Semaphore>>>,
    pub(super) hold_revoke: Mutex<Option<Arc<Semaphore>>>,
    pub(super) asked: Notify,
    pub(super) asked_to_revoke: Notify,
}

impl Default for FakeStore {
    fn default() -> Self {
        let name = StoreName::parse("main").unwrap();
        Self { name, audience: Audience::parse("bao").unwrap(), shared: Arc::default() }
    }
}

impl std::ops::Deref for FakeStore {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.shared
    }
}

impl Told {
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.logins), count(&self.fetches), count(&self.revoked))
    }

    pub(super) fn refuse_object(&self, name: &str, error: ObjectError) {
        self.refuse.lock().unwrap().insert(name.to_owned(), error);
    }

    async fn turn(&self, hold: &Mutex<Option<Arc<Semaphore>>>) {
        self.asked.notify_one();
        let hold = hold.lock().unwrap().clone();
        if let Some(hold) = hold {
            hold.acquire().await.unwrap().forget();
        }
    }
}

impl SecretStore for FakeStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn audience(&self) -> &Audience {
        &self.audience
    }

    fn login<'a>(
        &'a self,
        _: &'a VolumePlan,
        _: &'a SecretString,
    ) -> BoxFuture<'a, Result<StoreSession, StoreError>> {
        Box::pin(async {
            self.logins.fetch_add(1, Ordering::SeqCst);
            self.turn(&self.hold_login).await;
            match self.refuse_login.lock().unwrap().clone() {
                Some(error) => Err(error),
                None => Ok(Box::new(FakeSession(Arc::clone(&self.shared))) as StoreSession),
            }
        })
    }
}

struct FakeSession(Arc<Told>);

impl SecretSession for FakeSession {
    fn renew_identity(&self, jwt: &SecretString) {
        self.0.identities.lock().unwrap().push(jwt.expose().to_owned());
    }

    fn fetch<'a>(&'a self, plan: &'a VolumePlan) -> BoxFuture<'a, Fetch> {
        Box::pin(async move {
            self.0.fetches.fetch_add(1, Ordering::SeqCst);
            self.0.turn(&self.0.hold_fetch).await;
            let refused = self.0.refuse.lock().unwrap();
            let read = |planned: &sotto_store::plan::ObjectPlan| {
                let name = planned.path.to_string();
                match refused.get(&name) {
                    Some(error) => Err(error.clone()),
                    None => Ok(Object {
                        path: planned.path.clone(),
                        mode: planned.mode,
                        version: "7".to_owned(),
                        value: SecretBytes::new(format!("canary-{name}").into_bytes()),
                    }),
                }
            };
            Fetch { objects: plan.objects.iter().map(read).collect(), leases: Vec::new() }
        })
    }

    fn renew_lease<'a>(
        &'a self,
        _: &'a LeaseId,
        _: Duration,
    ) -> BoxFuture<'a, Result<Renewed, StoreError>> {
        unreachable!("no lease was given")
    }

    fn renew_token(&self, _: Duration) -> BoxFuture<'_, Result<TokenLife, StoreError>> {
        Box::pin(async { Ok(self.token_life()) })
    }

    fn token_life(&self) -> TokenLife {
        TokenLife { ttl: None, since: Instant::now(), renewable: false }
    }

    fn revoke(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.0.asked_to_revoke.notify_one();
            self.0.turn(&self.0.hold_revoke).await;
            self.0.revoked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }
}
