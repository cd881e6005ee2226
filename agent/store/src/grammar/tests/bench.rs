//! Two stores at one address and a third elsewhere, none of which is ever called.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{
    Audience, ClassName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, StoreName,
    WorkloadIdentity,
};
use sotto_core::limits::Limits;
use sotto_core::secret::SecretString;

use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::grammar::{PlanError, plan};
use crate::plan::{OpenBaoPlan, VolumePlan};
use crate::session::{SecretStore, StoreSession};
use crate::stores::Stores;

const STORES: &str = r#"
- name: main
  kind: openbao
  address: https://bao.example:8200
  ca: /ca.pem
  serverName: bao.internal
  auth: { method: jwt, audience: bao }
  allow: { namespaces: [payments] }
- name: team
  kind: vault
  address: https://bao.example:8200
  ca: /ca.pem
  namespace: team-a
  auth: { method: kubernetes, mount: k8s, role: default-role, audience: vault }
  allow: { serviceAccounts: [payments/checkout] }
- name: private
  kind: vault
  address: https://vault.example
  ca: /ca.pem
  auth: { method: jwt, audience: vault }
  allow: { namespaces: [other] }
"#;

/// The shortest list of objects that is accepted.
pub(super) const OBJECTS: &str = "[{objectName: a, secretPath: secret/data/a, secretKey: k}]";

struct Never(StoreName, Audience);

impl SecretStore for Never {
    fn name(&self) -> &StoreName {
        &self.0
    }

    fn audience(&self) -> &Audience {
        &self.1
    }

    fn resume(&self, _: &VolumePlan, _: &SecretString, _: &[u8]) -> Option<StoreSession> {
        None
    }

    fn login<'a>(
        &'a self,
        _plan: &'a VolumePlan,
        _jwt: &'a SecretString,
    ) -> BoxFuture<'a, Result<StoreSession, StoreError>> {
        let store = self.0.clone();
        async { Err(StoreError::Malformed { store }) }.boxed()
    }
}

pub(super) fn stores(default: Option<&str>) -> Stores {
    let configs: Vec<StoreConfig> = serde_saphyr::from_str(STORES).unwrap();
    let store = |config: StoreConfig| {
        let settings = config.check().unwrap();
        let store = Never(settings.name.clone(), settings.audience.clone());
        (settings, Arc::new(store) as Arc<dyn SecretStore>)
    };
    let default = default.map(|name| StoreName::parse(name).unwrap());
    Stores::of(configs.into_iter().map(store).collect(), default)
}

/// A class of namespace `payments` with these parameters, and `objects` and `roleName` unless given.
pub(super) fn class(provider: &str, parameters: &[(&str, &str)]) -> SecretProviderClass {
    let defaults = [("objects", OBJECTS), ("roleName", "r")];
    let given = defaults.iter().chain(parameters);
    SecretProviderClass {
        namespace: Namespace::parse("payments").unwrap(),
        name: ClassName::parse("class").unwrap(),
        provider: provider.to_owned(),
        parameters: given.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        wants_secret_objects: false,
    }
}

pub(super) fn identity(namespace: &str) -> WorkloadIdentity {
    WorkloadIdentity {
        namespace: Namespace::parse(namespace).unwrap(),
        pod_name: PodName::parse("checkout-0").unwrap(),
        pod_uid: PodUid::parse("uid-1").unwrap(),
        service_account: ServiceAccountName::parse("checkout").unwrap(),
        node: NodeName::parse("node-1").unwrap(),
    }
}

pub(super) fn of_class(
    class: &SecretProviderClass,
    limits: &Limits,
) -> Result<VolumePlan, Vec<PlanError>> {
    plan(class, &identity(class.namespace.as_str()), &stores(Some("main")), limits)
}

pub(super) fn openbao(parameters: &[(&str, &str)]) -> Result<VolumePlan, Vec<PlanError>> {
    of_class(&class("openbao", parameters), &Limits::default())
}

pub(super) fn vault(parameters: &[(&str, &str)]) -> Result<VolumePlan, Vec<PlanError>> {
    of_class(&class("vault", parameters), &Limits::default())
}

pub(super) fn objects(list: &str) -> Result<VolumePlan, Vec<PlanError>> {
    openbao(&[("objects", list)])
}

pub(super) fn texts(result: Result<VolumePlan, Vec<PlanError>>) -> Vec<String> {
    result.expect_err("refused").iter().map(ToString::to_string).collect()
}

pub(super) fn source(plan: &VolumePlan) -> &OpenBaoPlan {
    plan.source.openbao().expect("a plan for OpenBao or Vault")
}
