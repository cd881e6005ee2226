use sotto_core::limits::Limits;

use super::bench::*;
use crate::error::ObjectError;
use crate::fake::Reply;

#[tokio::test]
async fn objects_of_one_request_share_one_response() {
    let bench = Bench::new();
    let server = bench
        .serve(|seen| {
            assert_eq!(seen.body, r#"{"common_name":"x"}"#);
            Reply::ok(r#"{"data":{"certificate":"C","private_key":"K"}}"#)
        })
        .await;
    let objects = "
- {objectName: tls.crt, secretPath: pki/issue/web, method: PUT, secretArgs: {common_name: x}, secretKey: certificate}
- {objectName: tls.key, secretPath: /v1/pki/issue/web, method: PUT, secretArgs: {common_name: x}, secretKey: private_key}";
    let fetch = bench.fetch(&server, objects).await;
    assert_eq!((value(&fetch, 0), value(&fetch, 1)), (b"C".as_slice(), b"K".as_slice()));
    assert_eq!(server.log(), ["POST /v1/auth/pods/login", "PUT /v1/pki/issue/web"]);
}

#[tokio::test]
async fn the_token_the_namespace_and_the_query_go_out_as_the_api_wants_them() {
    let bench = Bench::new();
    let server = bench.serve(|_| kv("k", "v", 3)).await;
    let fetch = bench
        .fetch(&server, "[{objectName: a, secretPath: secret/data/db?version=3, secretKey: k}]")
        .await;
    assert_eq!(value(&fetch, 0), b"v");
    let seen = server.seen();
    assert_eq!(seen[0].header("x-vault-token"), None);
    assert!(seen[0].body.contains(JWT) && seen[0].body.contains(r#""role":"payments""#));
    assert_eq!(seen[1].target, "/v1/secret/data/db?version=3");
    assert_eq!(seen[1].header("x-vault-token"), Some("hvs.one"));
    assert!(seen.iter().all(|seen| seen.header("x-vault-namespace") == Some("team-a")));
    assert!(seen.iter().all(|seen| seen.header("x-vault-request") == Some("true")));
    assert_eq!(fetch.objects[0].as_ref().ok().unwrap().version, "3@2026-11-20T10:00:00Z");
}

#[tokio::test]
async fn results_come_in_the_classs_order_whatever_the_order_of_answers() {
    let bench = Bench::new();
    let server = bench.serve(|seen| kv("k", seen.target.rsplit('/').next().unwrap(), 1)).await;
    let objects: String = (0..40)
        .map(|n| format!("- {{objectName: o{n}, secretPath: secret/data/{n}, secretKey: k}}\n"))
        .collect();
    let fetch = bench.fetch(&server, &objects).await;
    for n in 0..40 {
        assert_eq!(value(&fetch, n), n.to_string().as_bytes());
    }
}

#[tokio::test]
async fn each_refusal_of_a_read_says_what_and_where() {
    let gone = |destroyed: bool| {
        Reply::new(
            404,
            format!(
                r#"{{"data":{{"data":null,"metadata":{{"version":1,"created_time":"t","destroyed":{destroyed}}}}}}}"#
            ),
        )
    };
    let denied = Reply::new(403, r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#);
    let v1 = r#"{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine"]}"#;
    let at = "secret/data/payments/db (store main)";
    for (reply, expected) in [
        (Reply::new(404, r#"{"errors":[]}"#), format!("no such secret at {at}")),
        (denied, "store main refuses payments/checkout: policy denies secret/data/payments/db; allow it by a policy of the pod's role, or correct secretPath".to_owned()),
        (gone(false), format!("the secret at {at} is deleted; undelete it or write a new version")),
        (gone(true), format!("the secret at {at} is destroyed; write a new version")),
        (Reply::new(404, v1), format!("no such secret at {at}: this is a KV version 2 engine, write secretPath: secret/data/data/payments/db")),
        (kv("other", "v", 1), format!("the secret at {at} has no key \"k\"; correct secretKey or add the key")),
        (Reply::new(204, ""), "secret/data/payments/db (store main) answers without data; check secretPath and method".to_owned()),
        (Reply::ok("<html>"), "the answer of store main can't be read; check that its address is an OpenBao or Vault server".to_owned()),
        (Reply::new(400, r#"{"errors":["unknown\u001b role"]}"#), "store main doesn't accept the request for secret/data/payments/db: unknown role; correct secretPath, method or secretArgs".to_owned()),
        (Reply::new(404, "<html>"), "store main answers with status 404 Not Found: no reason given; check the store's log".to_owned()),
    ] {
        let bench = Bench::new();
        let server = bench.serve(move |_| reply.clone()).await;
        let fetch = bench.fetch(&server, ONE).await;
        assert_eq!(message(&fetch, 0), expected);
        assert_eq!(server.log().len(), 2, "{expected}: one login, one read");
    }
}

#[tokio::test]
async fn refusals_absences_and_outages_are_told_apart() {
    let classify = |reply: Reply| async move {
        let bench = Bench::new();
        let server = bench.serve(move |_| reply.clone()).await;
        let fetch = bench.fetch(&server, ONE).await;
        let error = fetch.objects[0].as_ref().err().unwrap().clone();
        (error.is_refusal(), error.is_absence(), error.is_outage())
    };
    let denied = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
    assert_eq!(classify(Reply::new(403, denied)).await, (true, false, false));
    assert_eq!(classify(Reply::new(404, r#"{"errors":[]}"#)).await, (true, true, false));
    assert_eq!(classify(kv("other", "v", 1)).await, (true, true, false));
    for outage in [
        Reply::new(403, "<html>"),
        Reply::new(404, "<html>"),
        Reply::new(500, r#"{"errors":["internal error"]}"#),
        Reply::new(503, r#"{"errors":["Vault is sealed"]}"#),
        Reply::new(429, "{}"),
        Reply::ok("not json"),
    ] {
        assert_eq!(classify(outage).await, (false, false, true));
    }
}

#[tokio::test]
async fn sizes_are_limited_by_object_by_volume_and_by_response() {
    let mut bench = Bench::new();
    bench.limits = Limits { object_bytes: 100, volume_bytes: 250, ..Limits::default() };
    let server = bench
        .serve(|seen| match seen.target.as_str() {
            "/v1/secret/data/large" => kv("k", &"x".repeat(101), 1),
            "/v1/secret/data/huge" => kv("k", &"x".repeat(2 << 20), 1),
            _ => kv("k", &"x".repeat(100), 1),
        })
        .await;
    let fetch = bench
        .fetch(
            &server,
            "
- {objectName: a, secretPath: secret/data/large, secretKey: k}
- {objectName: b, secretPath: secret/data/huge, secretKey: k}
- {objectName: c, secretPath: secret/data/fits, secretKey: k}
- {objectName: d, secretPath: secret/data/fits, secretKey: k}
- {objectName: e, secretPath: secret/data/fits, secretKey: k}",
        )
        .await;
    let error = |index: usize| fetch.objects[index].as_ref().err().cloned();
    assert_eq!(error(0), Some(ObjectError::TooLarge { bytes: 101, limit: 100 }));
    assert!(message(&fetch, 1).contains("has more than"));
    assert_eq!((error(2), error(3)), (None, None));
    assert_eq!(error(4), Some(ObjectError::VolumeTooLarge { limit: 250 }));
}

#[tokio::test]
async fn versions_of_values_that_the_store_does_not_number_are_keyed_digests() {
    let bench = Bench::new();
    let server = bench.serve(|_| Reply::ok(r#"{"data":{"k":"v"}}"#)).await;
    let (store, plan) = bench.store(&server, ONE);
    let session = login(&store, &plan).await;
    let version = |fetch: crate::Fetch| fetch.objects[0].as_ref().ok().unwrap().version.clone();
    let first = version(session.fetch(&plan).await);
    assert_eq!(version(session.fetch(&plan).await), first);
    let other = version(bench.fetch(&server, ONE).await);
    assert!(first.len() == 32 && first != other, "the key is each store's own");
}

#[tokio::test]
async fn a_stores_words_never_carry_a_token_or_a_body() {
    let bench = Bench::new();
    let echo = format!(r#"{{"errors":["bad hvs.one and {JWT} {}"]}}"#, "long ".repeat(500));
    let server = bench.serve(move |_| Reply::new(500, echo.clone())).await;
    let message = message(&bench.fetch(&server, ONE).await, 0);
    assert!(!message.contains("hvs.one") && !message.contains("eyJ"), "{message}");
    assert!(message.len() < 300, "{message}");
}
