//! A directory for a socket, a store that looks there, a plan made from a class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{
    ClassName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, StoreName,
    WorkloadIdentity,
};
use sotto_core::limits::Limits;
use sotto_core::secret::SecretString;
pub(super) use sotto_dev::provider::{Behaviour, DevProvider, ProviderFile};

use crate::config::{ProviderConfig, ProviderSettings};
use crate::error::{ObjectError, StoreError};
use crate::plan::VolumePlan;
use crate::provider::{Provider, ProviderError};
use crate::session::{Fetch, SecretStore, StoreSession};
use crate::stores::Stores;

/// 2025-11-25T00:00:00Z.
const EXPIRY: u64 = 1_764_028_800;
/// Something of every token here, to be looked for where no token may be.
pub(super) const TOKEN_CANARY: &str = "canary-of-a-signature";

pub(super) struct Bench {
    folder: tempfile::TempDir,
    pub(super) limits: Limits,
    pub(super) deadline: Duration,
    pub(super) parameters: BTreeMap<String, String>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let parameters = [("region", "eu-west-1"), ("objects", "- objectName: \"a\"\n")];
        Self {
            folder,
            limits: Limits::default(),
            deadline: Duration::from_secs(10),
            parameters: parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A provider `aws` in the second directory.
    pub(super) fn provider(&self, behaviour: Behaviour) -> DevProvider {
        start(&self.directory("second"), behaviour)
    }

    pub(super) fn settings(&self) -> ProviderSettings {
        let text = serde_json::json!({
            "name": "aws",
            "kind": "provider",
            "audience": "sts.amazonaws.com",
            "directories": [self.directory("first"), self.directory("second")],
            "allow": { "namespaces": ["payments"] },
        });
        let config: ProviderConfig = serde_json::from_value(text).unwrap();
        config.check().unwrap()
    }

    pub(super) fn store(&self) -> (Arc<Provider>, VolumePlan) {
        let settings = self.settings();
        let store = Arc::new(Provider::with_deadline(&settings, self.deadline));
        let stores = Stores::of(Vec::new(), None).and_provider(settings, store.clone());
        let class = SecretProviderClass {
            namespace: Namespace::parse("payments").unwrap(),
            name: ClassName::parse("cloud").unwrap(),
            provider: "aws".to_owned(),
            parameters: self.parameters.clone(),
            wants_secret_objects: false,
        };
        let plan = crate::grammar::plan(&class, &identity(), &stores, &self.limits);
        (store, plan.unwrap_or_else(|faults| panic!("{faults:?}")))
    }

    pub(super) async fn session(&self) -> (StoreSession, VolumePlan) {
        let (store, plan) = self.store();
        (store.login(&plan, &jwt("one")).await.ok().unwrap(), plan)
    }

    /// Logs in and fetches once.
    pub(super) async fn fetch(&self) -> Fetch {
        let (session, plan) = self.session().await;
        session.fetch(&plan).await
    }

    /// The one error of a fetch from a provider that behaves so.
    pub(super) async fn error(&self, behaviour: Behaviour) -> ProviderError {
        let _provider = self.provider(behaviour);
        error(&self.fetch().await)
    }
}

pub(super) fn start(directory: &Path, behaviour: Behaviour) -> DevProvider {
    DevProvider::start(directory, "aws", behaviour).unwrap()
}

pub(super) fn identity() -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: Namespace::parse("payments").unwrap(),
        pod_name: PodName::parse("checkout-0").unwrap(),
        pod_uid: PodUid::parse("uid-1").unwrap(),
        service_account: ServiceAccountName::parse("checkout").unwrap(),
        node: NodeName::parse("node-1").unwrap(),
    }
}

/// A token that says when it ends; nobody verifies it here.
pub(super) fn jwt(id: &str) -> SecretString {
    let claims = serde_json::json!({ "exp": EXPIRY, "jti": id }).to_string();
    SecretString::new(format!(
        "eyJhbGciOiJFUzI1NiJ9.{}.{TOKEN_CANARY}",
        URL_SAFE_NO_PAD.encode(claims)
    ))
}

pub(super) fn store_name() -> StoreName {
    StoreName::parse("aws").unwrap()
}

pub(super) fn file(path: &str, content: &str, version: &str) -> ProviderFile {
    ProviderFile::new(path, content, version)
}

/// Each file with its content, version and mode.
pub(super) fn table(fetch: &Fetch) -> Vec<(&str, &str, &str, Option<u16>)> {
    let rows = fetch.objects.iter().map(|object| {
        let object = object.as_ref().unwrap_or_else(|error| panic!("{error}"));
        let content = std::str::from_utf8(object.value.expose()).unwrap();
        let mode = object.mode.map(|mode| mode.bits());
        (object.path.as_str(), content, object.version.as_str(), mode)
    });
    rows.collect()
}

pub(super) fn error(fetch: &Fetch) -> ProviderError {
    match fetch.objects.as_slice() {
        [Err(ObjectError::Store(StoreError::Provider(error)))] => error.clone(),
        [Err(error)] => panic!("{error}"),
        other => panic!("{} results", other.len()),
    }
}
