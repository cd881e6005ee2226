use std::time::{Duration, SystemTime};

use super::*;

const NO_LEEWAY: Duration = Duration::ZERO;

fn issuer() -> Issuer {
    Issuer::with_keys(DEMO_ISSUER, &[Algorithm::Es256]).unwrap()
}

fn spec() -> PodTokenSpec {
    PodTokenSpec::new("payments", "checkout", "checkout-0", "node-1")
}

#[test]
fn a_name_that_a_real_cluster_could_have_is_refused() {
    for name in ["https://kubernetes.default.svc", "http://x.invalid", "https://x.invalid.example"]
    {
        assert!(matches!(Issuer::with_keys(name, &[]), Err(IssuerError::NotInvalid(_))), "{name}");
    }
}

/// The fixture of `facts/kubelet-csi.md`, which was seen on a real cluster.
#[test]
fn claims_have_the_shape_that_kubernetes_gives_them() {
    let claims = spec().claims(DEMO_ISSUER);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&claims), ["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"]);
    let bound = &claims["kubernetes.io"];
    assert_eq!(keys(bound), ["namespace", "node", "pod", "serviceaccount"]);
    for part in ["node", "pod", "serviceaccount"] {
        assert_eq!(keys(&bound[part]), ["name", "uid"]);
    }
    assert_eq!(claims["sub"], "system:serviceaccount:payments:checkout");
    assert_eq!(claims["aud"], json!(["bao"]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
}

#[test]
fn both_algorithms_sign_what_the_issuer_itself_believes() {
    let issuer = Issuer::new(DEMO_ISSUER).unwrap();
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        let token = issuer.mint(&spec().algorithm(algorithm));
        assert_eq!(issuer.verify(&token, NO_LEEWAY).unwrap()["iss"], DEMO_ISSUER);
    }
    assert_eq!(issuer.jwks()["keys"].as_array().unwrap().len(), 2);
    assert!(issuer.jwks()["keys"].as_array().unwrap().iter().all(|key| key["kid"].is_string()));
}

#[test]
fn each_way_to_be_wrong_is_noticed_by_the_verification_of_the_development_store() {
    let issuer = issuer();
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    for (spec, error) in [
        (spec().signature(Signature::Forged), VerifyError::Signature),
        (spec().signature(Signature::Tampered), VerifyError::Signature),
        (spec().signature(Signature::Absent), VerifyError::Signature),
        (spec().signature(Signature::HmacOfPublicKey), VerifyError::Signature),
        (spec().header("crit", json!(["x"])), VerifyError::Signature),
        (spec().header("alg", json!("ES384")), VerifyError::Signature),
        (spec().header("kid", json!("other")), VerifyError::Signature),
        (spec().without_header("kid"), VerifyError::Signature),
        (spec().claim("/iss", json!("https://other.invalid")), VerifyError::Issuer),
        (spec().claim("/iss", json!([DEMO_ISSUER])), VerifyError::Issuer),
        (spec().issued_at(now - hour), VerifyError::Expired),
        (spec().without_claim("/exp"), VerifyError::Expired),
        (spec().issued_at(now + hour), VerifyError::NotYetValid),
        (spec().claim("/iat", json!(u32::MAX)), VerifyError::IssuedInTheFuture),
    ] {
        assert_eq!(issuer.verify(&issuer.mint(&spec), NO_LEEWAY), Err(error), "{spec:?}");
    }
    assert_eq!(issuer.verify("a.b", NO_LEEWAY), Err(VerifyError::Format));
}

#[test]
fn claims_are_replaced_and_removed_where_a_pointer_says() {
    let claims = spec()
        .claim("/kubernetes.io/pod/uid", json!("other"))
        .without_claim("/kubernetes.io/node")
        .claims(DEMO_ISSUER);
    assert_eq!(claims["kubernetes.io"]["pod"]["uid"], "other");
    assert!(claims["kubernetes.io"].get("node").is_none());
}

#[test]
fn a_rotated_key_is_known_beside_the_old_one_until_that_is_retired() {
    let issuer = issuer();
    let old = issuer.mint(&spec());
    issuer.rotate(Algorithm::Es256).unwrap();
    let new = issuer.mint(&spec());
    assert!(issuer.verify(&old, NO_LEEWAY).is_ok() && issuer.verify(&new, NO_LEEWAY).is_ok());
    issuer.retire_old_keys();
    assert_eq!(issuer.verify(&old, NO_LEEWAY), Err(VerifyError::Signature));
    assert!(issuer.verify(&new, NO_LEEWAY).is_ok());
}

#[tokio::test]
async fn discovery_jwks_and_reviews_are_served_over_https() {
    use http::Method;

    let authority = crate::pki::Authority::new("ca").unwrap();
    let issuer = issuer();
    let server = issuer.serve(&authority).await.unwrap();
    let client =
        crate::client::HttpsClient::new(server.address(), authority.certificate_pem(), None)
            .unwrap();
    let get = |path: &'static str| client.send(Method::GET, path, None, None);
    let discovery = get("/.well-known/openid-configuration").await.unwrap().body;
    assert_eq!(discovery["issuer"], DEMO_ISSUER);
    assert_eq!(discovery["jwks_uri"], server.jwks_url());
    assert_eq!(get("/openid/v1/jwks").await.unwrap().body, issuer.jwks());

    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = json!({"spec": {"token": issuer.mint(&spec()), "audiences": ["bao"]}});
    let refused = client.send(Method::POST, path, None, Some(&review)).await.unwrap();
    assert_eq!(refused.status, 401, "a review needs the reviewer's token");
    let request = http::Request::post(path)
        .header("host", "127.0.0.1")
        .header("authorization", format!("Bearer {}", server.reviewer_token()))
        .body(http_body_util::Full::from(review.to_string()))
        .unwrap();
    let reviewed = client.exchange(request).await.unwrap();
    assert_eq!((reviewed.status, &reviewed.body["status"]["authenticated"]), (201, &json!(true)));
}

#[test]
fn a_review_tells_the_pod_and_refuses_other_audiences_and_forgotten_pods() {
    let issuer = issuer();
    let spec = spec();
    let token = issuer.mint(&spec);
    let review = |audience: &str| {
        issuer.review(&json!({"spec": {"token": token, "audiences": [audience]}}))["status"].clone()
    };
    let status = review("bao");
    assert_eq!(status["user"]["username"], "system:serviceaccount:payments:checkout");
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([spec.pod_uid]));
    assert_eq!(status["audiences"], json!(["bao"]));
    assert_eq!(review("other")["authenticated"], false);
    issuer.forget_pod(&spec.pod_uid);
    assert_eq!(review("bao")["authenticated"], false);
}
