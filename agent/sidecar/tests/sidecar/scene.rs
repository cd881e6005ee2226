//! A pod: its token, its client certificate, its handoff volume, and a store that it may read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use sotto_dev::issuer::{Algorithm, DEMO_ISSUER, Issuer, PodTokenSpec};
use sotto_dev::pki::Authority;
use sotto_dev::process::{Program, Running};
use sotto_dev::store::DevStore;
use sotto_dev::test_store::TestStore as _;
use sotto_handoff::message::{
    AssignedClass, AssignedLimits, AssignedRefresh, AssignedStore, Assignment, Pod, Prepare, Role,
};
use sotto_handoff::socket::Listener;
use tempfile::TempDir;

use super::driver::{self, Driver, Sidecar};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const VOLUME: &str = "csi-1";
const OBJECTS: &str =
    "- {objectName: password, secretPath: secret/data/payments/checkout/db, secretKey: password}";

pub(crate) struct Scene {
    pub(crate) store: DevStore,
    pub(crate) driver: Arc<Driver>,
    pub(crate) listener: Listener,
    pub(crate) token: PodTokenSpec,
    authority: Authority,
    issuer: Issuer,
    files: TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let authority = Authority::new("ca").unwrap();
        let issuer = Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256]).unwrap();
        let store = DevStore::start(&authority, &issuer).await.unwrap();
        store.write("payments/checkout/db", json!({"password": "p1"})).await.unwrap();
        let files = tempfile::Builder::new().prefix("sotto-sidecar-").tempdir().unwrap();
        let listener = driver::listen(files.path());
        let token = PodTokenSpec::new("payments", "checkout", "web-0", "node-1");
        let driver = Arc::default();
        let scene = Self { store, driver, listener, token, authority, issuer, files };
        scene.write_token(&scene.token);
        scene
    }

    /// Another server for the same pods, with the secret as it is there.
    pub(crate) async fn another_store(&self) -> DevStore {
        let store = DevStore::start(&self.authority, &self.issuer).await.unwrap();
        store.write("payments/checkout/db", json!({"password": "p2"})).await.unwrap();
        store
    }

    /// `sotto-node` says from now on that the pod's store is this one.
    pub(crate) fn resolve_to(&self, other: &DevStore) {
        let mut moved = self.assignment();
        let store = moved.store.as_mut().unwrap();
        store.address = other.access().url();
        store.ca = std::fs::read(other.access().ca()).unwrap();
        *self.driver.resolved.lock().unwrap() = Some(moved);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn write_token(&self, spec: &PodTokenSpec) {
        let token = format!("{}\n", self.issuer.mint(spec));
        let new = self.path("token.new");
        std::fs::write(&new, token).unwrap();
        // As kubelet does: whoever reads sees the old one or the new one.
        std::fs::rename(new, self.path("token")).unwrap();
    }

    /// The same pod's token, that expired a minute ago.
    pub(crate) fn expired(&self) -> PodTokenSpec {
        let mut spec = self.token.clone();
        spec.issued_at = SystemTime::now() - spec.lifetime - Duration::from_secs(60);
        spec
    }

    pub(crate) async fn start(&self) -> Running {
        let client = &self.store.access().client;
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let program = Program::new("sotto-agent", env!("CARGO_BIN_EXE_sotto-agent")).arguments([
            "--development".to_owned(),
            "--log=debug".to_owned(),
            option("handoff", self.files.path()),
            option("token", &self.path("token")),
            option("client-certificate", &client.certificate),
            option("client-key", &client.key),
        ]);
        Running::start(program).await.unwrap()
    }

    /// The sidecar's next link.
    pub(crate) async fn linked(&self) -> Sidecar {
        driver::accept(&self.driver, &self.listener, Role::Sidecar).await
    }

    pub(crate) fn assignment(&self) -> Assignment {
        let access = self.store.access();
        let parameters = [("objects", OBJECTS), ("roleName", "payments")];
        let owned = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Assignment {
            class: Some(AssignedClass {
                provider: "vault".to_owned(),
                parameters: owned.into_iter().collect(),
            }),
            store: Some(AssignedStore {
                name: "main".to_owned(),
                kind: "openbao".to_owned(),
                address: access.url(),
                ca: std::fs::read(access.ca()).unwrap(),
                auth_method: "jwt".to_owned(),
                audience: "bao".to_owned(),
                is_default: true,
                ..AssignedStore::default()
            }),
            limits: Some(AssignedLimits {
                object_bytes: 1 << 10,
                volume_bytes: 1 << 12,
                objects: 10,
            }),
            refresh: Some(AssignedRefresh {
                interval_ms: 1_000,
                max_stale_ms: 60_000,
                until_max_stale: false,
            }),
            own_users: false,
        }
    }

    pub(crate) fn prepare(&self) -> Prepare {
        let pod = Pod {
            namespace: self.token.namespace.clone(),
            name: self.token.pod_name.clone(),
            uid: self.token.pod_uid.clone(),
            service_account: self.token.service_account.clone(),
            node: self.token.node_name.clone(),
        };
        Prepare {
            volume_id: VOLUME.to_owned(),
            pod: Some(pod),
            secret_provider_class: "payments-db".to_owned(),
            deadline_ms: 10_000,
            assignment: Some(self.assignment()),
            ..Prepare::default()
        }
    }
}

/// Waits for a line of the sidecar.
pub(crate) async fn said(sidecar: &Running, words: &str) {
    let found = sidecar
        .log()
        .until(|lines| lines.iter().any(|line| line.text.contains(words)).then_some(()));
    let found = tokio::time::timeout(PATIENCE, found).await;
    assert!(found.is_ok(), "{words:?} was not said:\n{}", sidecar.log().tail());
}
