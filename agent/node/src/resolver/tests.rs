use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use sotto_core::class::SecretProviderClass;
use sotto_core::clock::SystemClock;
use sotto_core::identity::{ClassName, Namespace, NodeName, WorkloadIdentity};
use sotto_dev::apiserver::{FakeApiServer, Fault};
use sotto_handoff::message::{Ping, Pod};
use sotto_kubernetes::client::{Cluster, Source};
use sotto_runtime::drain::Drain;
use sotto_runtime::memory::LockedMemory;
use sotto_supervisor::Keeper;
use sotto_volume::audit::AuditLog;
use sotto_volume::classes::{ClassError, ClassSource, LookUp};
use sotto_volume::cluster::{Answering, NoCluster, Reviews};
use sotto_volume::driver::DriverCalls;
use sotto_volume::reporter::NoReports;
use sotto_volume::token::TokenVerifier;
use sotto_volume::volumes::{Deadlines, Services, Settings, VolumeLimit};
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Mode};

const SOON: Duration = Duration::from_secs(10);
const CONFIGURATION: &str = r#"
stores:
  - name: main
    kind: openbao
    address: https://bao.example:8200
    ca: DIR/ca.pem
    clientCertificate: DIR/ca.pem
    clientKey: DIR/tls.key
    auth: { method: jwt, audience: bao, role: payments }
    allow: { namespaces: ["payments"] }
  - name: other
    kind: provider
    audience: bao
    allow: { namespaces: ["payments"] }
defaults: { store: main }
limits: { objectBytes: 1024, volumeBytes: 4096, objects: 7 }
refresh: { interval: 30s, maxStale: 10m, onRevoke: until-max-stale }
tokens: { issuer: "https://kubernetes.example", jwks: { file: DIR/jwks.json } }
classes: { directory: DIR }
sidecar: { images: [ "sotto/agent:1" ] }
"#;

/// Classes by name; one that is called `slow` never comes.
struct Classes(BTreeMap<&'static str, (&'static str, String)>);

impl ClassSource for Classes {
    fn class<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUp<'a> {
        let (namespace, name) = (namespace.clone(), name.clone());
        Box::pin(async move {
            if name.as_str() == "slow" {
                std::future::pending::<()>().await;
            }
            let Some((provider, more)) = self.0.get(name.as_str()) else {
                return Err(ClassError::Unknown { namespace, name });
            };
            let objects = "- {objectName: p, secretPath: secret/data/db, secretKey: p}".to_owned();
            let parameters = [("objects", objects), ("unknown", more.clone())];
            let parameters = parameters.map(|(key, value)| (key.to_owned(), value)).into();
            let provider = (*provider).to_owned();
            let wants_secret_objects = false;
            Ok(Arc::new(SecretProviderClass {
                namespace,
                name,
                provider,
                parameters,
                wants_secret_objects,
            }))
        })
    }
}

/// Says whatever it is made with.
struct Pods(Result<bool, Refusal>);

impl PodCheck for Pods {
    fn check<'a>(&'a self, _: &'a WorkloadIdentity) -> Answering<'a, Result<bool, Refusal>> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

struct Lines(Sender<Value>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(serde_json::from_slice(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Fixture {
    requests: Requests,
    audit: AuditLog,
    lines: Receiver<Value>,
    files: TempDir,
}

fn fixture(pods: Option<Result<bool, Refusal>>) -> Fixture {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let files = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["bao.example".to_owned()]).unwrap();
    let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
    write("ca.pem", &cert.pem());
    write("tls.key", &signing_key.serialize_pem());
    write("jwks.json", r#"{"keys":[]}"#);
    let text = CONFIGURATION.replace("DIR", &files.path().display().to_string());
    let config = Config::parse(&text, Mode::Production).ok().unwrap();
    assert_eq!(config.sidecar.images, ["sotto/agent:1"]);
    let clock = Arc::new(SystemClock);
    let (sender, lines) = channel();
    let audit = AuditLog::start(Lines(sender), Arc::clone(&clock) as _).unwrap();
    let stores = Arc::new(config.stores);
    let classes = [
        ("db", ("openbao", "x".to_owned())),
        ("foreign", ("other", "x".to_owned())),
        ("large", ("openbao", "x".repeat(MOST_BYTES))),
    ];
    let volumes = Volumes::new(Services {
        node: NodeName::parse("node-1").unwrap(),
        classes: Arc::new(Classes(classes.into())),
        reporter: Arc::new(NoReports),
        reviews: Reviews { cluster: Arc::new(NoCluster), stores: Default::default() },
        settings: Arc::new(Settings::new(Arc::clone(&stores), config.limits, config.refresh)),
        verifier: TokenVerifier::new(
            config.tokens.keys,
            config.tokens.issuer,
            SOON,
            Arc::clone(&clock) as _,
        ),
        memory: Arc::new(LockedMemory::new()),
        audit: audit.clone(),
        keeper: Keeper::default(),
        metrics: Arc::default(),
        clock,
        volume_limit: VolumeLimit { count: 10, remedy: "" },
        driver: DriverCalls::channel().1,
        deadlines: Deadlines::default(),
        drain: Drain::new(),
    });
    let pods = pods.map(|answer| Arc::new(Pods(answer)) as Arc<dyn PodCheck>);
    Fixture { requests: Requests::new(volumes, stores, pods), audit, lines, files }
}

impl Fixture {
    async fn resolve(&self, class: &str) -> Result<Assignment, (Code, String)> {
        self.resolve_for("payments", class).await
    }

    async fn resolve_for(
        &self,
        namespace: &str,
        class: &str,
    ) -> Result<Assignment, (Code, String)> {
        let pod = Pod {
            namespace: namespace.to_owned(),
            name: "web-0".to_owned(),
            uid: "uid-1".to_owned(),
            service_account: "checkout".to_owned(),
            node: "node-1".to_owned(),
        };
        let message = Resolve {
            volume_id: "csi-1".to_owned(),
            pod: Some(pod),
            secret_provider_class: class.to_owned(),
            deadline_ms: 500,
        };
        match self.requests.handle(Body::Resolve(message), None).await {
            Ok(Answer { body: Body::Resolved(resolved), .. }) => Ok(resolved.assignment.unwrap()),
            Ok(other) => panic!("{:?}", other.body),
            Err(refusal) => Err((refusal.code(), refusal.message().to_owned())),
        }
    }

    async fn audited(&self) -> Vec<String> {
        assert!(self.audit.flush(SOON).await);
        let told = |line: Value| {
            assert_eq!(line["volume"], "csi-1");
            format!("{} {}", line["action"].as_str().unwrap(), line["decision"].as_str().unwrap())
        };
        self.lines.try_iter().map(told).collect()
    }
}

#[tokio::test]
async fn a_sidecar_is_given_its_class_and_the_administrators_settings_and_no_key() {
    let fixture = fixture(Some(Ok(true)));
    let assignment = fixture.resolve("db").await.unwrap();
    let store = assignment.store.unwrap();
    assert_eq!(
        (store.address.as_str(), store.role.as_str()),
        ("https://bao.example:8200", "payments")
    );
    assert_eq!(store.ca, std::fs::read(fixture.files.path().join("ca.pem")).unwrap());
    assert!(store.is_default && assignment.own_users);
    assert_eq!(assignment.class.unwrap().provider, "openbao");
    let limits = AssignedLimits { object_bytes: 1024, volume_bytes: 4096, objects: 7 };
    assert_eq!(assignment.limits, Some(limits));
    let refresh =
        AssignedRefresh { interval_ms: 30_000, max_stale_ms: 600_000, until_max_stale: true };
    assert_eq!(assignment.refresh, Some(refresh));
}

#[tokio::test]
async fn what_a_sidecar_may_not_have_is_refused_with_the_reason() {
    let fixture = fixture(None);
    for (class, code, words) in [
        ("nowhere", Code::NotFound, "no SecretProviderClass nowhere"),
        ("foreign", Code::FailedPrecondition, "node mode"),
        ("large", Code::ResourceExhausted, "can be given to a sidecar"),
        ("slow", Code::DeadlineExceeded, "was not read within 500ms"),
    ] {
        let (given, reason) = fixture.resolve(class).await.unwrap_err();
        assert!(given == code && reason.contains(words), "{given:?} {reason}");
    }
    let (code, reason) = fixture.resolve_for("shop", "db").await.unwrap_err();
    assert_eq!(code, Code::PermissionDenied, "{reason}");
    std::fs::remove_file(fixture.files.path().join("ca.pem")).unwrap();
    assert_eq!(fixture.resolve("db").await.unwrap_err().0, Code::Unavailable);
}

#[tokio::test]
async fn a_pod_that_is_refused_is_audited_and_the_same_is_said_once() {
    let refusal = Refusal::new(Code::PermissionDenied, "no sidecar");
    let refused = fixture(Some(Err(refusal)));
    for _ in 0..3 {
        assert_eq!(refused.resolve("db").await.unwrap_err().1, "no sidecar");
    }
    assert_eq!(refused.audited().await, ["resolve denied"]);
    let allowed = fixture(Some(Ok(false)));
    for _ in 0..3 {
        assert!(!allowed.resolve("db").await.unwrap().own_users);
    }
    assert_eq!(allowed.audited().await, ["resolve allowed"]);
    // Everything else is the volumes' to answer.
    let answer = allowed.requests.handle(Body::Ping(Ping {}), None).await.unwrap();
    assert!(matches!(answer.body, Body::Pong(_)));
}

#[tokio::test]
async fn the_api_servers_pod_decides_and_is_remembered_once_it_is_good() {
    let server = FakeApiServer::start().await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let kubeconfig = files.path().join("config");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let cluster = Cluster::connect(&Source::Kubeconfig(kubeconfig)).await.unwrap();
    let check = SidecarPods::new(&cluster, vec!["sotto/agent:1".to_owned()]);
    let web: WorkloadIdentity = serde_json::from_value(json!({"namespace": "shop",
        "pod_name": "web-0", "pod_uid": "uid-0", "service_account": "web", "node": "node-1"}))
    .unwrap();
    let pod = |image: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "uid-0"},
            "spec": {
                "initContainers": [{
                    "name": "sotto-agent", "image": image, "restartPolicy": "Always",
                    "securityContext": {"runAsUser": 65532},
                    "volumeMounts": [{"name": "sotto-handoff"}],
                }],
                "volumes": [{"name": "sotto-handoff"}],
            },
        })
    };
    server.fail("get", "pods", Fault::Status(503), 1);
    assert_eq!(check.check(&web).await.unwrap_err().code(), Code::Unavailable);
    server.put("pods", pod("sotto/agent:0"));
    let refusal = check.check(&web).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert!(refusal.message().contains("sidecar.images"), "{refusal}");
    server.put("pods", pod("sotto/agent:1"));
    assert_eq!(check.check(&web).await, Ok(false));
    server.fail("get", "pods", Fault::Status(503), 1);
    assert_eq!(check.check(&web).await, Ok(false), "a refresh doesn't ask again");
}
