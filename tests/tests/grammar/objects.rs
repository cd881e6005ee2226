//! The keys of an object: `objectName`, `secretPath`, `secretKey`, `method`, `secretArgs`, `filePermission`,
//! `encoding`.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use sotto_dev::bao::Bao;
use sotto_dev::store::{Capability, DevStore, POD_POLICY, Policy};
use sotto_dev::test_store::TestStore;
use sotto_tests::files;
use sotto_tests::scene::Scene;

use super::{PROVIDERS, apply};

sotto_tests::on_both_stores! {
    each_key_of_an_object_gives_the_file_that_is_promised,
    an_object_without_a_key_is_the_whole_response,
    an_object_that_cannot_be_read_so_is_refused_by_name,
}

const ROLE: [(&str, &str); 1] = [("roleName", "payments")];

/// One object of a class: how its author writes it, and the file that comes of it.
struct Case {
    /// The lines of the object after `objectName`.
    written: &'static str,
    name: &'static str,
    content: &'static [u8],
    /// `filePermission`; an object without one is 0444 in a pod without fsGroup.
    mode: u32,
}

const fn case(name: &'static str, written: &'static str, content: &'static [u8]) -> Case {
    Case { written, name, content, mode: 0o444 }
}

const fn with_mode(name: &'static str, written: &'static str, mode: u32) -> Case {
    Case { written, name, content: b"p-2", mode }
}

const CASES: &[Case] = &[
    // objectName: the file's path.
    case("plain", "secretPath: secret/data/payments/checkout/v, secretKey: word", b"p-2"),
    case(
        "Dir/sub.d/file_1-x.pem",
        "secretPath: secret/data/payments/checkout/v, secretKey: word",
        b"p-2",
    ),
    // secretPath: /v1/ is prefixed where it isn't there; the query is parsed; KV 1 has no `data` segment.
    case("slash", "secretPath: /secret/data/payments/checkout/v, secretKey: word", b"p-2"),
    case("v1", "secretPath: /v1/secret/data/payments/checkout/v, secretKey: word", b"p-2"),
    case("v1-bare", "secretPath: v1/secret/data/payments/checkout/v, secretKey: word", b"p-2"),
    case(
        "first",
        "secretPath: \"secret/data/payments/checkout/v?version=1\", secretKey: word",
        b"p-1",
    ),
    case(
        "second",
        "secretPath: \"secret/data/payments/checkout/v?version=2\", secretKey: word",
        b"p-2",
    ),
    case(
        "newest",
        "secretPath: \"secret/data/payments/checkout/v?version=0\", secretKey: word",
        b"p-2",
    ),
    case("kv1", "secretPath: kv/payments/checkout/old, secretKey: word", b"kv1"),
    // secretKey: a string as it is, anything else as JSON.
    case("number", "secretPath: secret/data/payments/checkout/v, secretKey: number", b"7"),
    case(
        "large",
        "secretPath: secret/data/payments/checkout/v, secretKey: large",
        b"9007199254740992",
    ),
    case("yes", "secretPath: secret/data/payments/checkout/v, secretKey: yes", b"true"),
    case("nothing", "secretPath: secret/data/payments/checkout/v, secretKey: nothing", b"null"),
    case("list", "secretPath: secret/data/payments/checkout/v, secretKey: list", b"[1,\"two\"]"),
    case(
        "map",
        "secretPath: secret/data/payments/checkout/v, secretKey: map",
        b"{\"a\":1,\"b\":{\"c\":[]}}",
    ),
    case("empty", "secretPath: secret/data/payments/checkout/v, secretKey: empty", b""),
    case("lines", "secretPath: secret/data/payments/checkout/v, secretKey: lines", b"one\ntwo\n"),
    case(
        "words",
        "secretPath: secret/data/payments/checkout/v, secretKey: \"two words.x/y\"",
        b"spaced",
    ),
    // method: GET is the default.
    case(
        "get",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, method: GET",
        b"p-2",
    ),
    // encoding: in any case.
    case(
        "utf-8",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, encoding: utf-8",
        b"p-2",
    ),
    case(
        "base64",
        "secretPath: secret/data/payments/checkout/v, secretKey: base64, encoding: base64",
        b"\x00\xffsecret",
    ),
    case(
        "Base64",
        "secretPath: secret/data/payments/checkout/v, secretKey: base64, encoding: BASE64",
        b"\x00\xffsecret",
    ),
    case(
        "hex",
        "secretPath: secret/data/payments/checkout/v, secretKey: hex, encoding: hex",
        b"\xde\xad\xbe\xef",
    ),
    case(
        "Hex",
        "secretPath: secret/data/payments/checkout/v, secretKey: hex-upper, encoding: Hex",
        b"\xde\xad\xbe\xef",
    ),
    case(
        "undecoded",
        "secretPath: secret/data/payments/checkout/v, secretKey: base64",
        b"AP9zZWNyZXQ=",
    ),
    // filePermission: octal in both versions of YAML, or decimal.
    with_mode(
        "m0600",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, filePermission: 0600",
        0o600,
    ),
    with_mode(
        "m0o600",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, filePermission: 0o600",
        0o600,
    ),
    with_mode(
        "m384",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, filePermission: 384",
        0o600,
    ),
    with_mode(
        "m0440",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, filePermission: 0440",
        0o440,
    ),
    with_mode(
        "m0777",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, filePermission: 0777",
        0o777,
    ),
    with_mode(
        "m0",
        "secretPath: secret/data/payments/checkout/v, secretKey: word, filePermission: 0",
        0o444,
    ),
];

fn values() -> Value {
    json!({
        "word": "p-2", "number": 7, "large": 9_007_199_254_740_992_u64, "yes": true, "nothing": null,
        "list": [1, "two"], "map": {"b": {"c": []}, "a": 1}, "empty": "", "lines": "one\ntwo\n",
        "two words.x/y": "spaced", "base64": "AP9zZWNyZXQ=", "hex": "deadbeef",
        "hex-upper": "DEADBEEF",
    })
}

async fn fill<S: TestStore>(scene: &Scene<S>) -> anyhow::Result<()> {
    scene.write("payments/checkout/v", json!({"word": "p-1"})).await?;
    scene.write("payments/checkout/v", values()).await?;
    scene.store().write_v1("payments/checkout/old", json!({"word": "kv1", "n": 1})).await
}

async fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let path = path.to_owned();
    files::blocking(move || std::fs::read(path)).await
}

async fn each_key_of_an_object_gives_the_file_that_is_promised<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    fill(&scene).await?;
    let object = |case: &Case| format!("- {{objectName: {}, {}}}\n", case.name, case.written);
    let objects: String = CASES.iter().map(object).collect();
    for provider in PROVIDERS {
        let pod = apply(&scene, provider, provider, &ROLE, &objects)?;
        let target = scene.publish(&pod).await?;
        for Case { name, content, mode, written } in CASES {
            let file = target.join(name);
            let seen = bytes(&file).await?;
            assert_eq!(seen, *content, "{provider}, {name} ({written}): {seen:?}");
            let (bits, uid, gid) = files::mode_and_owner(file).await?;
            assert_eq!((bits, uid, gid), (*mode, 0, 0), "{provider}, {name} ({written}): {bits:o}");
        }
        scene.stop(&pod).await?;
    }
    Ok(())
}

/// With the fields of the providers' client; the request's id is left empty, or every refresh would be a
/// rotation.
async fn an_object_without_a_key_is_the_whole_response<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    fill(&scene).await?;
    let objects = "- {objectName: v2, secretPath: \"secret/data/payments/checkout/v?version=1\"}\n\
                   - {objectName: v1, secretPath: kv/payments/checkout/old, encoding: hex}";
    for provider in PROVIDERS {
        let pod = apply(&scene, provider, provider, &ROLE, objects)?;
        let target = scene.publish(&pod).await?;
        let whole = |text: String| serde_json::from_str::<Value>(&text);
        let v2 = whole(files::read(target.join("v2")).await?)?;
        assert_eq!(v2["data"]["data"], json!({"word": "p-1"}), "{provider}");
        assert_eq!(v2["data"]["metadata"]["version"], 1, "{provider}");
        let v1 = whole(files::read(target.join("v1")).await?)?;
        assert_eq!(
            v1["data"],
            json!({"word": "kv1", "n": 1}),
            "{provider}: no encoding of a whole"
        );
        for response in [v2, v1] {
            let fields: Vec<_> = response.as_object().expect("a map").keys().cloned().collect();
            let wanted =
                ["data", "lease_duration", "lease_id", "renewable", "request_id", "warnings"];
            assert_eq!(fields, wanted, "{provider}");
        }
        scene.stop(&pod).await?;
    }
    Ok(())
}

async fn an_object_that_cannot_be_read_so_is_refused_by_name<S: TestStore>(
    scene: Scene<S>,
) -> anyhow::Result<()> {
    fill(&scene).await?;
    let at = "secretPath: secret/data/payments/checkout/v";
    for (class, written, words) in [
        ("no-key", format!("{at}, secretKey: none"), ["no key \"none\"", "correct secretKey"]),
        (
            "no-base64",
            format!("{at}, secretKey: lines, encoding: base64"),
            ["not base64", "correct encoding"],
        ),
        (
            "no-hex",
            format!("{at}, secretKey: word, encoding: hex"),
            ["not hex", "correct encoding"],
        ),
        (
            "encoding",
            format!("{at}, secretKey: word, encoding: rot13"),
            ["\"rot13\"", "write utf-8, base64 or hex"],
        ),
        (
            "method",
            format!("{at}, secretKey: word, method: DELETE"),
            ["\"DELETE\"", "write GET, PUT or POST"],
        ),
        (
            "permission",
            format!("{at}, secretKey: word, filePermission: '0600'"),
            ["filePermission", "without quotes"],
        ),
        (
            "bits",
            format!("{at}, secretKey: word, filePermission: 01777"),
            ["filePermission", "write it in octal"],
        ),
        (
            "version",
            "secretPath: \"secret/data/payments/checkout/v?version=9\", secretKey: word".to_owned(),
            ["no such secret", "?version=9"],
        ),
        (
            "segment",
            "secretPath: secret/payments/checkout/v, secretKey: word".to_owned(),
            ["object 1 (bad)", "secret/payments/checkout/v"],
        ),
    ] {
        let objects = format!(
            "- {{objectName: good, {at}, secretKey: word}}\n- {{objectName: bad, {written}}}"
        );
        let pod = apply(&scene, class, "vault", &ROLE, &objects)?;
        let refusal = scene.refusal(&pod).await?;
        assert!(refusal.contains("object 1 (bad)"), "{class}: {refusal}");
        assert!(words.iter().all(|word| refusal.contains(word)), "{class}: {refusal}");
        assert!(!refusal.contains("p-2"), "a value is in: {refusal}");
    }
    Ok(())
}

/// `method` and `secretArgs`: what is sent arrives as it was written, and the answer is read as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_arguments_are_sent_as_json_by_the_method_that_is_written() -> anyhow::Result<()> {
    let scene: Scene<DevStore> = Scene::embedded().await?;
    let capabilities = [Capability::Read, Capability::Write];
    let policy = Policy::pod().allow("secret/data/payments/checkout/*", &capabilities);
    scene.store().put_policy(POD_POLICY, policy);
    for (index, (provider, method)) in
        PROVIDERS.iter().flat_map(|it| [(*it, "PUT"), (*it, "POST")]).enumerate()
    {
        let path = format!("payments/checkout/made-{index}");
        let objects = format!(
            "- objectName: version\n  secretPath: secret/data/{path}\n  secretKey: version\n  \
             method: {method}\n  secretArgs:\n    data:\n      text: \"0600\"\n      n: 3\n      \
             list: [a, {{b: false}}]\n"
        );
        let pod = apply(
            &scene,
            &format!("args-{index}"),
            provider,
            &[("roleName", "payments")],
            &objects,
        )?;
        let target = scene.publish(&pod).await?;
        assert_eq!(files::read(target.join("version")).await?, "1", "{provider} {method}");
        let (_, written) = scene.store().read(&path, None).await?;
        assert_eq!(written["data"], json!({"text": "0600", "n": 3, "list": ["a", {"b": false}]}));
        let sent = scene.store().requests().into_iter().find(|it| it.path.ends_with(&path));
        assert_eq!(sent.map(|it| it.method).as_deref(), Some(method));
        scene.stop(&pod).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_store_takes_put_and_post_with_arguments() -> anyhow::Result<()> {
    let scene: Scene<Bao> = Scene::openbao().await?;
    let post = |path: &'static str, body| scene.store().admin(Method::POST, path, Some(body));
    post("sys/mounts/transit", json!({"type": "transit"})).await?;
    post("transit/keys/app", json!({})).await?;
    let rule = "path \"transit/hmac/app\" { capabilities = [\"update\"] }";
    post("sys/policies/acl/hmac", json!({"policy": rule})).await?;
    let mut role =
        scene.store().admin(Method::GET, "auth/jwt/role/payments", None).await?["data"].clone();
    role["token_policies"] = json!([POD_POLICY, "hmac"]);
    scene.store().put_role("jwt", "payments", role).await?;
    for (provider, method) in [("vault", "PUT"), ("openbao", "POST")] {
        let objects = format!(
            "- {{objectName: h, secretPath: transit/hmac/app, method: {method}, secretKey: hmac, \
             secretArgs: {{input: c290dG8=}}}}"
        );
        let pod = apply(&scene, &format!("hmac-{provider}"), provider, &ROLE, &objects)?;
        let hmac = files::read(scene.publish(&pod).await?.join("h")).await?;
        assert!(hmac.starts_with("vault:v1:"), "{provider}: {hmac}");
        scene.stop(&pod).await?;
    }
    Ok(())
}

/// Byte for byte what the providers write: Go's JSON, with its escapes and sorted keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_not_text_is_the_json_that_a_real_store_gives() -> anyhow::Result<()> {
    let scene: Scene<Bao> = Scene::openbao().await?;
    let map = json!({"z": "<a&b>", "a": [1, 2.5, null], "é": "ü"});
    scene.write("payments/checkout/j", json!({"map": map, "text": "<a&b>"})).await?;
    let objects = "- {objectName: map, secretPath: secret/data/payments/checkout/j, secretKey: map}\n\
                   - {objectName: text, secretPath: secret/data/payments/checkout/j, secretKey: text}";
    let pod = apply(&scene, "json", "vault", &ROLE, objects)?;
    let files = files::tree(scene.publish(&pod).await?).await?;
    assert_eq!(files["map"], r#"{"a":[1,2.5,null],"z":"\u003ca\u0026b\u003e","é":"ü"}"#);
    assert_eq!(files["text"], "<a&b>");
    scene.stop(&pod).await
}
