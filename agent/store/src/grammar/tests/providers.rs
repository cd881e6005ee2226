use std::sync::Arc;

use sotto_core::limits::Limits;

use super::bench::*;
use crate::Stores;
use crate::config::{ProviderConfig, ProviderSettings};
use crate::grammar::{PlanError, plan};
use crate::plan::{PlanSource, ProviderPlan, VolumePlan};
use crate::provider::Provider;

fn with_provider(name: &str, namespaces: &str) -> Stores {
    let text = format!("{{name: {name}, audience: sts, allow: {{namespaces: [{namespaces}]}}}}");
    let config: ProviderConfig = serde_saphyr::from_str(&text).unwrap();
    let settings: ProviderSettings = config.check().unwrap();
    let store = Arc::new(Provider::new(&settings));
    stores(Some("main")).and_provider(settings, store)
}

fn planned(provider: &str, stores: &Stores) -> Result<VolumePlan, Vec<PlanError>> {
    let class = class(provider, &[("region", "eu-west-1")]);
    plan(&class, &identity("payments"), stores, &Limits::default())
}

fn provider_source(plan: &VolumePlan) -> &ProviderPlan {
    match &plan.source {
        PlanSource::Provider(source) => source,
        PlanSource::OpenBao(_) => panic!("a plan for OpenBao"),
    }
}

#[test]
fn a_class_of_a_configured_provider_goes_there_with_its_parameters_as_they_stand() {
    let plan = planned("aws", &with_provider("aws", "payments")).unwrap();
    assert_eq!((plan.store.as_str(), plan.audience.as_str()), ("aws", "sts"));
    assert!(plan.objects.is_empty() && plan.warnings.is_empty());
    let source = provider_source(&plan);
    assert_eq!(source.attributes["region"], "eu-west-1");
    assert_eq!(source.attributes["objects"], OBJECTS);
    assert_eq!(source.pod.as_str(), "uid-1");
}

#[test]
fn a_providers_name_is_written_exactly() {
    let stores = with_provider("My_Provider", "payments");
    assert!(planned("My_Provider", &stores).is_ok());
    assert_eq!(
        texts(planned("my_provider", &stores)),
        [
            "provider my_provider is not configured: ask the administrator to add a store of kind provider named my_provider"
        ]
    );
}

#[test]
fn a_provider_that_the_namespace_may_not_use_is_refused() {
    let texts = texts(planned("aws", &with_provider("aws", "other")));
    assert_eq!(texts.len(), 1);
    assert!(texts[0].starts_with("store aws may not be used by payments/checkout"), "{texts:?}");
}

#[test]
fn a_class_of_another_namespace_is_refused_for_a_provider_too() {
    let stores = with_provider("aws", "\"*\"");
    let faults = plan(&class("aws", &[]), &identity("other"), &stores, &Limits::default());
    assert!(matches!(faults.unwrap_err()[0], PlanError::OtherNamespace { .. }));
}

#[test]
fn vault_is_read_here_unless_the_administrator_configured_its_provider() {
    let native = planned("vault", &with_provider("aws", "payments")).unwrap();
    assert_eq!(source(&native).login.role.as_deref(), Some("r"));
    let handed_on = planned("vault", &with_provider("vault", "payments")).unwrap();
    assert_eq!(provider_source(&handed_on).attributes["roleName"], "r");
}

#[test]
fn a_store_of_another_kind_is_no_provider() {
    assert!(texts(planned("main", &stores(Some("main"))))[0].contains("main is not configured"));
}

#[test]
fn a_provider_is_no_default_and_shares_its_name_with_nothing() {
    let yaml = "[{name: main, audience: a, allow: {namespaces: [x]}}, {name: main, audience: a, allow: {namespaces: [x]}}]";
    let configs: Vec<ProviderConfig> = serde_saphyr::from_str(yaml).unwrap();
    let configs: Vec<_> = configs.into_iter().map(Into::into).collect();
    let default = sotto_core::identity::StoreName::parse("main").unwrap();
    let faults = Stores::validate(&configs, Some(&default));
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["stores[1].name", "defaults.store"]);
    assert!(faults[1].message.contains("kind provider"), "{}", faults[1].message);
    let opened = Stores::open(configs.into_iter().take(1).collect(), None).ok().unwrap();
    assert_eq!(opened.audiences().len(), 1);
    assert!(opened.get(&default).is_some() && opened.names().count() == 1);
}
