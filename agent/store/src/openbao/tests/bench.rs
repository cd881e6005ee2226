//! A store, a plan made from a class, and a server that answers a login by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{
    Audience, ClassName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, StoreName,
    WorkloadIdentity,
};
use sotto_core::limits::Limits;
use sotto_core::secret::SecretString;

use crate::config::{AllowConfig, AuthConfig, AuthMethod, StoreConfig, StoreKind, StoreSettings};
use crate::fake::{FakeServer, Pki, Reply, Seen};
use crate::http::HttpsClient;
use crate::openbao::{OpenBao, Timing};
use crate::plan::VolumePlan;
use crate::session::{Fetch, SecretStore, StoreSession};
use crate::stores::Stores;

pub(super) const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.pod-token.signature";

pub(super) const TIMING: Timing = Timing {
    exchange: Duration::from_secs(5),
    call: Duration::from_secs(10),
    fetch: Duration::from_secs(10),
    pause: Duration::from_millis(5),
};

pub(super) struct Bench {
    pub(super) pki: Pki,
    folder: tempfile::TempDir,
    pub(super) method: AuthMethod,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            pki: Pki::new(),
            folder: tempfile::tempdir().unwrap(),
            method: AuthMethod::Jwt,
            limits: Limits::default(),
            timing: TIMING,
        }
    }

    /// A server that lets everybody in and answers anything else as told.
    pub(super) async fn serve(
        &self,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> FakeServer {
        FakeServer::start(self.pki.mutual(), move |seen| {
            if is_login(seen) { logged_in("hvs.one") } else { answer(seen) }
        })
        .await
    }

    pub(super) fn settings(&self, address: &str, standbys: &[String]) -> StoreSettings {
        let files = self.pki.files(self.folder.path(), &self.pki.identity());
        StoreConfig {
            name: "main".to_owned(),
            kind: StoreKind::OpenBao,
            address: address.to_owned(),
            standbys: standbys.to_vec(),
            ca: self.folder.path().join("ca.pem"),
            server_name: None,
            client_certificate: files.client_certificate,
            client_key: files.client_key,
            namespace: Some("team-a".to_owned()),
            auth: AuthConfig {
                method: self.method,
                mount: Some("pods".to_owned()),
                role: None,
                audience: "bao".to_owned(),
            },
            allow: AllowConfig {
                namespaces: vec!["payments".to_owned()],
                service_accounts: Vec::new(),
            },
        }
        .check()
        .unwrap()
    }

    /// A store at that server, with a plan for these objects.
    pub(super) fn store(&self, server: &FakeServer, objects: &str) -> (Arc<OpenBao>, VolumePlan) {
        self.store_with(&server.address(), &[], objects)
    }

    pub(super) fn store_with(
        &self,
        address: &str,
        standbys: &[String],
        objects: &str,
    ) -> (Arc<OpenBao>, VolumePlan) {
        let settings = self.settings(address, standbys);
        let https = HttpsClient::new(settings.tls.clone()).unwrap();
        let store = Arc::new(OpenBao::with_timing(&settings, https, self.timing));
        let stores = Stores::of(vec![(settings, store.clone())], Some(name("main")));
        let plan =
            crate::grammar::plan(&class(objects), &identity("checkout"), &stores, &self.limits);
        (store, plan.unwrap_or_else(|faults| panic!("{faults:?}")))
    }

    /// Logs in and fetches.
    pub(super) async fn fetch(&self, server: &FakeServer, objects: &str) -> Fetch {
        let (store, plan) = self.store(server, objects);
        login(&store, &plan).await.fetch(&plan).await
    }
}

pub(super) fn name(text: &str) -> StoreName {
    StoreName::parse(text).unwrap()
}

pub(super) fn jwt() -> SecretString {
    SecretString::new(JWT.to_owned())
}

pub(super) async fn login(store: &Arc<OpenBao>, plan: &VolumePlan) -> StoreSession {
    store.login(plan, &jwt()).await.unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn identity(service_account: &str) -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: Namespace::parse("payments").unwrap(),
        pod_name: PodName::parse("checkout-0").unwrap(),
        pod_uid: PodUid::parse("uid-1").unwrap(),
        service_account: ServiceAccountName::parse(service_account).unwrap(),
        node: NodeName::parse("node-1").unwrap(),
    }
}

pub(super) fn class(objects: &str) -> SecretProviderClass {
    let parameters = [("roleName", "payments"), ("objects", objects)];
    SecretProviderClass {
        namespace: Namespace::parse("payments").unwrap(),
        name: ClassName::parse("db").unwrap(),
        provider: "openbao".to_owned(),
        parameters: BTreeMap::from(parameters.map(|(key, value)| (key.into(), value.into()))),
        wants_secret_objects: false,
    }
}

pub(super) fn is_login(seen: &Seen) -> bool {
    seen.target.starts_with("/v1/auth/pods/login")
}

pub(super) fn logged_in(token: &str) -> Reply {
    logged_in_for(token, 600)
}

pub(super) fn logged_in_for(token: &str, seconds: u64) -> Reply {
    Reply::ok(&format!(
        r#"{{"auth":{{"client_token":"{token}","lease_duration":{seconds},"renewable":true,"token_type":"service"}}}}"#
    ))
}

pub(super) fn kv(key: &str, value: &str, version: u64) -> Reply {
    let data = serde_json::json!({ "data": {
        "data": { key: value },
        "metadata": { "version": version, "created_time": "2026-11-20T10:00:00Z", "deletion_time": "", "destroyed": false },
    } });
    Reply::ok(&data.to_string())
}

pub(super) fn value(fetch: &Fetch, index: usize) -> &[u8] {
    match &fetch.objects[index] {
        Ok(object) => object.value.expose(),
        Err(error) => panic!("object {index}: {error}"),
    }
}

pub(super) fn message(fetch: &Fetch, index: usize) -> String {
    match &fetch.objects[index] {
        Ok(_) => panic!("object {index} was read"),
        Err(error) => error.to_string(),
    }
}

pub(super) fn audience(text: &str) -> Audience {
    Audience::parse(text).unwrap()
}

pub(super) const ONE: &str = "[{objectName: a, secretPath: secret/data/payments/db, secretKey: k}]";
