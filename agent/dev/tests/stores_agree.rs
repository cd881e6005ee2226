//! The embedded store against the real OpenBao server: the same requests, the same answers.
//!
//! Whatever a client may meet is here, so that a test on the embedded store says something about a real one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::Method;
use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_dev::client::HttpsClient;
use sotto_dev::issuer::{Algorithm, DEMO_ISSUER, Issuer, PodTokenSpec, Signature};
use sotto_dev::pki::Authority;
use sotto_dev::store::{DevStore, POD_POLICY, ROLE};
use sotto_dev::test_store::TestStore;

/// Fields that differ by nature: ids, times, and what the real server tells of its plugins.
const NOT_COMPARED: &[&str] = &[
    "accessor",
    "client_token",
    "config",
    "created_time",
    "deprecation_status",
    "entity_id",
    "external_entropy_access",
    "plugin_version",
    "request_id",
    "running_plugin_version",
    "running_sha256",
    "seal_wrap",
    "uuid",
];

struct Scene {
    authority: Authority,
    issuer: Issuer,
}

struct Actor<'a> {
    scene: &'a Scene,
    client: HttpsClient,
    admin: String,
    pod: String,
    answers: Vec<(String, u16, Value)>,
}

#[derive(Clone, Copy)]
enum Who {
    Admin,
    Pod,
    Stranger,
    Nobody,
}

fn spec() -> PodTokenSpec {
    PodTokenSpec::new("payments", "checkout", "checkout-0", "node-1")
}

impl<'a> Actor<'a> {
    fn new(scene: &'a Scene, store: &impl TestStore, admin: &str) -> Self {
        let credential = scene.authority.client("test").unwrap();
        let ca = scene.authority.certificate_pem();
        let client = HttpsClient::new(store.access().address, ca, Some(&credential)).unwrap();
        Self { scene, client, admin: admin.to_owned(), pod: String::new(), answers: Vec::new() }
    }

    async fn ask(&mut self, who: Who, method: Method, path: &str, body: Option<Value>) {
        let token = match who {
            Who::Admin => Some(self.admin.as_str()),
            Who::Pod => Some(self.pod.as_str()),
            Who::Stranger => Some("s.nobody"),
            Who::Nobody => None,
        };
        let full = format!("/v1/{path}");
        let reply = self.client.send(method.clone(), &full, token, body.as_ref()).await.unwrap();
        if path.ends_with("/login") && reply.status == 200 {
            self.pod = reply.body["auth"]["client_token"].as_str().unwrap().to_owned();
        }
        let location = reply.headers.get("location").map(|it| it.to_str().unwrap().to_owned());
        let mut body = compared(&reply.body);
        if let Some(location) = location {
            body = json!({"location": location});
        }
        self.answers.push((format!("{method} {path}"), reply.status, body));
    }

    async fn login(&mut self, mount: &str, role: &str, spec: &PodTokenSpec) {
        let body = json!({"role": role, "jwt": self.scene.issuer.mint(spec)});
        self.ask(Who::Nobody, Method::POST, &format!("auth/{mount}/login"), Some(body)).await;
    }

    async fn get(&mut self, who: Who, path: &str) {
        self.ask(who, Method::GET, path, None).await;
    }
}

fn compared(value: &Value) -> Value {
    let Value::Object(map) = value else { return value.clone() };
    let kept = map.iter().filter(|(key, _)| !NOT_COMPARED.contains(&key.as_str()));
    let kept = kept.map(|(key, value)| match key.as_str() {
        "deletion_time" => (key.clone(), json!(value != "")),
        _ => (key.clone(), compared(value)),
    });
    Value::Object(kept.collect())
}

async fn logins(actor: &mut Actor<'_>) {
    let login = "auth/jwt/login";
    for body in
        [json!({"jwt": "x.y.z"}), json!({"role": ROLE}), json!({"role": ROLE, "jwt": "a.b"})]
    {
        actor.ask(Who::Nobody, Method::POST, login, Some(body)).await;
    }
    actor.get(Who::Nobody, login).await;
    actor.ask(Who::Nobody, Method::POST, "auth/nothing/login", Some(json!({"role": "r"}))).await;
    actor.login("jwt", "other", &spec()).await;
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    for wrong in [
        spec().audience("other"),
        spec().without_claim("/aud"),
        spec().claim("/iss", json!("https://other.invalid")),
        spec().issued_at(now - hour),
        spec().claim("/nbf", json!(u32::MAX)),
        spec().claim("/iat", json!(u32::MAX)),
        spec().signature(Signature::Forged),
        spec().signature(Signature::Tampered),
        spec().header("crit", json!(["x"])),
        spec().header("alg", json!("ES384")),
        spec().claim("/kubernetes.io/namespace", json!("shop")),
        spec().without_claim("/kubernetes.io/namespace"),
    ] {
        actor.login("jwt", ROLE, &wrong).await;
    }
    actor.login("jwt", ROLE, &spec().claim("/aud", json!("bao"))).await;
    actor.login("jwt", ROLE, &spec().algorithm(Algorithm::Rs256)).await;
    actor.login("jwt", ROLE, &spec()).await;
}

async fn reads(actor: &mut Actor<'_>) {
    let own = "secret/data/payments/checkout/db";
    actor.ask(Who::Admin, Method::POST, own, Some(json!({"data": {"password": "x"}}))).await;
    actor
        .ask(Who::Admin, Method::POST, own, Some(json!({"data": {"n": 5, "o": {"x": [1]}}})))
        .await;
    actor.ask(Who::Admin, Method::POST, own, Some(json!({}))).await;
    for who in [Who::Pod, Who::Stranger, Who::Nobody] {
        actor.get(who, own).await;
    }
    for path in [
        "secret/data/payments/checkout/db?version=1",
        "secret/data/payments/checkout/db?version=9",
        "secret/data/payments/checkout/db?version=x",
        "secret/data/payments/checkout/none",
        "secret/data/payments/web/db",
        "secret/payments/checkout/db",
        "secret//data/payments/checkout/db",
        "secret/data/../data/payments/checkout/db",
        "nothing/x",
    ] {
        actor.get(Who::Pod, path).await;
        actor.get(Who::Admin, path).await;
    }
    actor.ask(Who::Pod, Method::POST, own, Some(json!({"data": {"a": "b"}}))).await;
    actor
        .ask(Who::Admin, Method::PUT, "kv/payments/checkout/a", Some(json!({"x": "y", "n": 1})))
        .await;
    actor.get(Who::Pod, "kv/payments/checkout/a").await;
    actor.get(Who::Pod, "kv/payments/checkout/b").await;
    actor.get(Who::Pod, "kv/payments/web/a").await;
}

async fn deletions(actor: &mut Actor<'_>) {
    let (own, secret) = ("secret/data/payments/checkout/db", "payments/checkout/db");
    let versions = |list: &[u64]| Some(json!({"versions": list}));
    actor.ask(Who::Admin, Method::DELETE, own, None).await;
    actor.get(Who::Pod, own).await;
    for (endpoint, list) in [("undelete", [2]), ("delete", [1]), ("destroy", [2])] {
        let path = format!("secret/{endpoint}/{secret}");
        actor.ask(Who::Admin, Method::POST, &path, versions(&list)).await;
        actor.get(Who::Pod, own).await;
        actor.get(Who::Pod, &format!("{own}?version=1")).await;
    }
    actor.ask(Who::Admin, Method::DELETE, &format!("secret/metadata/{secret}"), None).await;
    actor.get(Who::Pod, own).await;
    actor.ask(Who::Admin, Method::POST, own, Some(json!({"data": {"password": "again"}}))).await;
    actor.get(Who::Pod, own).await;
}

async fn the_rest(actor: &mut Actor<'_>, store: &impl TestStore) {
    for path in ["secret", "secret/payments/x", "kv", "nothing"] {
        actor.get(Who::Pod, &format!("sys/internal/ui/mounts/{path}")).await;
    }
    actor.get(Who::Nobody, "sys/internal/ui/mounts/secret").await;
    actor.ask(Who::Pod, Method::POST, "auth/token/renew-self", Some(json!({}))).await;
    actor.ask(Who::Nobody, Method::PUT, "sys/health", None).await;
    store.remove_policy(POD_POLICY).await.unwrap();
    actor.get(Who::Pod, "secret/data/payments/checkout/db").await;
    actor.get(Who::Pod, "sys/internal/ui/mounts/secret").await;
    store.restore_policy().await.unwrap();
    actor.get(Who::Pod, "secret/data/payments/checkout/db").await;
    for _ in 0..2 {
        actor.ask(Who::Pod, Method::POST, "auth/token/revoke-self", None).await;
    }
    actor.get(Who::Pod, "secret/data/payments/checkout/db").await;
    actor.login("jwt", ROLE, &spec()).await;
    store.revoke_tokens().await.unwrap();
    actor.get(Who::Pod, "secret/data/payments/checkout/db").await;
    store.remove_role("jwt", ROLE).await.unwrap();
    actor.login("jwt", ROLE, &spec()).await;
}

async fn kubernetes(actor: &mut Actor<'_>) {
    let login = "auth/kubernetes/login";
    for body in
        [json!({"jwt": "x.y.z"}), json!({"role": ROLE}), json!({"role": ROLE, "jwt": "a.b"})]
    {
        actor.ask(Who::Nobody, Method::POST, login, Some(body)).await;
    }
    actor.login("kubernetes", "other", &spec()).await;
    actor.login("kubernetes", ROLE, &spec().audience("other")).await;
    actor.login("kubernetes", ROLE, &spec().signature(Signature::Forged)).await;
    actor.login("kubernetes", ROLE, &spec().claim("/exp", json!(5))).await;
    actor.login("kubernetes", ROLE, &spec().claim("/kubernetes.io/namespace", json!("shop"))).await;
}

async fn play(actor: &mut Actor<'_>, store: &impl TestStore) {
    logins(actor).await;
    reads(actor).await;
    deletions(actor).await;
    kubernetes(actor).await;
    the_rest(actor, store).await;
}

#[tokio::test]
async fn the_embedded_store_answers_as_the_real_server_does() {
    let authority = Authority::new("ca").unwrap();
    let scene = Scene { authority, issuer: Issuer::new(DEMO_ISSUER).unwrap() };
    let dev = DevStore::start(&scene.authority, &scene.issuer).await.unwrap();
    let bao = Bao::start(&scene.authority, &scene.issuer).await.unwrap();
    let reviews = scene.issuer.serve(&scene.authority).await.unwrap();
    bao.enable_kubernetes(&reviews).await.unwrap();

    let mut ours = Actor::new(&scene, &dev, &dev.admin_token());
    let mut theirs = Actor::new(&scene, &bao, bao.admin_token());
    play(&mut ours, &dev).await;
    play(&mut theirs, &bao).await;
    assert!(theirs.answers.len() > 80, "{}", theirs.answers.len());
    let differ: Vec<_> =
        ours.answers.iter().zip(&theirs.answers).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(differ.is_empty(), "ours, then the real server's: {differ:#?}");
}

#[tokio::test]
async fn the_real_server_believes_the_issuer_by_jwks_and_by_token_review() {
    let authority = Authority::new("ca").unwrap();
    let issuer = Issuer::new(DEMO_ISSUER).unwrap();
    let server = issuer.serve(&authority).await.unwrap();
    let bao = Bao::start(&authority, &issuer).await.unwrap();
    bao.trust_jwks(&issuer, &server).await.unwrap();
    bao.enable_kubernetes(&server).await.unwrap();
    bao.write("payments/checkout/db", json!({"password": "x"})).await.unwrap();
    for (mount, algorithm) in
        [("jwt", Algorithm::Es256), ("jwt", Algorithm::Rs256), ("kubernetes", Algorithm::Es256)]
    {
        let body = json!({"role": ROLE, "jwt": issuer.mint(&spec().algorithm(algorithm))});
        let path = format!("/v1/auth/{mount}/login");
        let login = bao.client().send(Method::POST, &path, None, Some(&body)).await.unwrap();
        assert_eq!(login.status, 200, "{mount} {algorithm:?}: {}", login.errors());
        let token = login.body["auth"]["client_token"].as_str().unwrap();
        let path = "/v1/secret/data/payments/checkout/db";
        let read = bao.client().send(Method::GET, path, Some(token), None).await.unwrap();
        assert_eq!(read.status, 200, "{mount}: {}", read.errors());
    }
}

#[tokio::test]
async fn a_sealed_server_and_the_sealed_fault_answer_alike() {
    use sotto_dev::store::Fault;
    let authority = Authority::new("ca").unwrap();
    let scene = Scene { authority, issuer: Issuer::new(DEMO_ISSUER).unwrap() };
    let dev = DevStore::start(&scene.authority, &scene.issuer).await.unwrap();
    let bao = Bao::start(&scene.authority, &scene.issuer).await.unwrap();
    dev.fail(None, Fault::Sealed, None);
    bao.seal().await.unwrap();
    let mut ours = Actor::new(&scene, &dev, &dev.admin_token());
    let mut theirs = Actor::new(&scene, &bao, bao.admin_token());
    for actor in [&mut ours, &mut theirs] {
        actor.get(Who::Admin, "secret/data/x").await;
        actor.login("jwt", ROLE, &spec()).await;
    }
    assert_eq!(ours.answers, theirs.answers);
}

#[tokio::test]
async fn the_real_server_issues_certificates_to_the_pod_that_may_have_them() {
    let authority = Authority::new("ca").unwrap();
    let issuer = Issuer::new(DEMO_ISSUER).unwrap();
    let bao = Bao::start(&authority, &issuer).await.unwrap();
    bao.enable_pki().await.unwrap();
    let body = json!({"role": ROLE, "jwt": issuer.mint(&spec())});
    let login =
        bao.client().send(Method::POST, "/v1/auth/jwt/login", None, Some(&body)).await.unwrap();
    let token = login.body["auth"]["client_token"].as_str().unwrap();
    let name = json!({"common_name": "checkout.payments.invalid"});
    let path = "/v1/pki/issue/payments-checkout";
    let issued = bao.client().send(Method::PUT, path, Some(token), Some(&name)).await.unwrap();
    assert_eq!(issued.status, 200, "{}", issued.errors());
    assert!(issued.body["data"]["private_key"].as_str().unwrap().starts_with("-----BEGIN"));
}
