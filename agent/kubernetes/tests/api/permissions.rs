//! The table of calls against what was really asked of the server, and against the ClusterRole in
//! `deploy/base`: no rule too few, none too many.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sotto_core::identity::{Audience, ClassName, PodName};
use sotto_core::secret::SecretString;
use sotto_dev::apiserver::FakeApiServer;
use sotto_kubernetes::api_error::ApiError;
use sotto_kubernetes::calls::calls;
use sotto_kubernetes::client::Cluster;
use sotto_kubernetes::events::{Events, Reporter, Settings};
use sotto_kubernetes::pod_status::{self, PodStatus, PodStatuses, StatusKey};
use sotto_kubernetes::pods::Pods;
use sotto_kubernetes::token_review::TokenReviewer;
use sotto_kubernetes::{driver_check, token_review};

use crate::kit::{
    CLASSES, LONG, Task, class, cluster, event, node, quick, shop, until, watched, web,
};
use crate::manifests::{built, of_folder};

/// Group, resource, verb.
type Right = (String, String, String);

fn table() -> BTreeSet<Right> {
    let owned = |text: &str| text.to_owned();
    calls().iter().map(|one| (owned(one.group), owned(one.resource), owned(one.verb))).collect()
}

/// What the service account may do in the whole cluster and in namespaces.
fn rights_of(objects: &[Value], account: &str) -> BTreeSet<Right> {
    let bound = |binding: &&Value| {
        let subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
        subjects.iter().any(|one| one["kind"] == "ServiceAccount" && one["name"] == account)
    };
    let bindings = objects
        .iter()
        .filter(|one| one["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")))
        .filter(bound);
    let mut rights = BTreeSet::new();
    for binding in bindings {
        let role = objects.iter().find(|one| {
            one["kind"] == binding["roleRef"]["kind"]
                && one["metadata"]["name"] == binding["roleRef"]["name"]
        });
        let name = binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned();
        match role {
            Some(role) => rights.extend(rights_in(&role["rules"])),
            None => _ = rights.insert(("elsewhere".to_owned(), name, "bind".to_owned())),
        }
    }
    rights
}

fn rights_in(rules: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
        assert!(rule["nonResourceURLs"].is_null(), "no path is asked for");
    }
    rights
}

/// Both directions, as text.
fn differences(rules: &BTreeSet<Right>, calls: &BTreeSet<Right>) -> Vec<String> {
    let show = |what: &str, right: &Right| format!("{what}: {right:?}");
    let extra = rules.difference(calls).map(|right| show("allowed but never asked", right));
    let missing = calls.difference(rules).map(|right| show("asked but not allowed", right));
    extra.chain(missing).collect()
}

#[test]
fn the_cluster_role_allows_what_is_asked_and_no_more() {
    let base = of_folder("base");
    let rights = rights_of(&base, "sotto-node");
    assert!(!rights.is_empty(), "the ClusterRole was not found");
    assert_eq!(differences(&rights, &table()), Vec::<String>::new());
    assert_eq!(rights_of(&base, "sotto-csi"), BTreeSet::new(), "the privileged one has no rights");
}

#[test]
fn overlays_add_no_rights_but_the_use_of_openshifts_own_constraints() {
    let constraints = ("elsewhere", "system:openshift:scc:privileged", "bind");
    for overlay in ["overlays/dev", "overlays/drop-in", "overlays/openshift"] {
        let objects = built(overlay);
        if objects.is_empty() {
            continue;
        }
        for (account, wanted) in [("sotto-node", table()), ("sotto-csi", BTreeSet::new())] {
            let mut rights = rights_of(&objects, account);
            rights.retain(|(group, resource, verb)| {
                let right = (group.as_str(), resource.as_str(), verb.as_str());
                right != ("security.openshift.io", "securitycontextconstraints", "use")
                    && (right != constraints || account != "sotto-csi")
            });
            assert_eq!(differences(&rights, &wanted), Vec::<String>::new(), "{overlay} {account}");
        }
    }
}

#[test]
fn a_rule_too_many_and_a_rule_too_few_are_detected() {
    let mut rules = of_folder("base")
        .into_iter()
        .find(|one| one["kind"] == "ClusterRole")
        .map(|role| role["rules"].clone())
        .expect("deploy/base has a ClusterRole");
    assert_eq!(differences(&rights_in(&rules), &table()), Vec::<String>::new());
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
    rules.as_array_mut().unwrap().push(rule);
    let found = differences(&rights_in(&rules), &table());
    assert_eq!(found, [r#"allowed but never asked: ("", "secrets", "get")"#]);
    rules.as_array_mut().unwrap().clear();
    let found = differences(&rights_in(&rules), &table());
    assert_eq!(found.len(), calls().len());
    assert!(found.iter().all(|one| one.starts_with("asked but not allowed")));
}

#[test]
fn nothing_is_asked_of_secrets_and_no_token_is_made() {
    for call in calls() {
        assert!(!["secrets", "serviceaccounts/token"].contains(&call.resource), "{call}");
        assert!(call.resource != "pods" || call.verb == "get", "{call}");
        assert!(!call.verb.contains('*') && !call.resource.contains('*'), "{call}");
    }
}

/// Every part of the crate once, under the ClusterRole of `deploy/base` and nothing else.
#[tokio::test]
async fn the_table_is_what_is_really_asked_and_the_cluster_role_is_enough_for_it() {
    let server = FakeApiServer::start().await.unwrap();
    let role = of_folder("base").into_iter().find(|one| one["kind"] == "ClusterRole").unwrap();
    server.allow_only(&role["rules"]);
    server.put(CLASSES, class("db", "r"));
    let cluster = cluster(&server).await;

    let (_classes, _watch) = watched(&server, quick()).await;
    let driver = driver_check::check(&cluster, "csi.sotto.dev", &[], LONG).await.unwrap();
    assert!(matches!(driver[0], driver_check::Finding::Missing { .. }), "allowed, and not there");
    let review = TokenReviewer::new(&cluster, LONG)
        .review(&SecretString::new("t".to_owned()), &Audience::parse("bao").unwrap())
        .await;
    assert!(matches!(review, Err(token_review::ReviewError::Unauthenticated { .. })));
    let pod = Pods::new(&cluster, LONG).has_own_users(&web()).await;
    assert!(matches!(pod, Err(ApiError::NotFound { .. })), "allowed, and not there: {pod:?}");
    write_an_event_twice(&server, &cluster).await;
    write_a_status(&cluster).await;

    let mut asked = BTreeSet::new();
    for request in server.requests() {
        assert_eq!(request.subresource, "", "{request:?}");
        if request.content_type.starts_with("application/apply-patch") {
            // What creates by applying needs this right as well.
            let create = "create".to_owned();
            asked.insert((request.group.clone(), request.resource.clone(), create));
        }
        asked.insert((request.group, request.resource, request.verb.to_owned()));
    }
    assert_eq!(asked, table());
}

async fn write_an_event_twice(server: &FakeApiServer, cluster: &Cluster) {
    let settings = Settings { window: Duration::from_millis(50), ..Settings::default() };
    let reporter = Reporter { component: "sotto-node".to_owned(), node: node() };
    let (events, sender) = Events::start(cluster, reporter, settings);
    let _task = Task::spawn(sender);
    events.report(event("x"));
    events.report(event("x"));
    server.until("a count", |it| !it.requests_of("patch", "events").is_empty()).await;
    until("both were sent", || events.counts().sent == 2).await;
}

async fn write_a_status(cluster: &Cluster) {
    let (statuses, writer) = PodStatuses::start(cluster, node(), pod_status::Settings::default());
    let _task = Task::spawn(writer);
    statuses.write(PodStatus {
        key: StatusKey {
            namespace: shop(),
            pod_name: PodName::parse("web-0").unwrap(),
            class: ClassName::parse("db").unwrap(),
        },
        pod_uid: event("").pod.uid,
        mounted: true,
        target_path: "/t".to_owned(),
        objects: Vec::new(),
    });
    until("it is written", || statuses.counts().written == 1).await;
}
