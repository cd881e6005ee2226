use super::*;
use crate::token::testing::{
    ISSUER, NOW, Signer, audience, claims, encode, key_set, pod, unsigned,
};
use crate::token::{FileKeys, Keys};
use proptest::prelude::*;
use serde_json::json;
use sotto_core::clock::FixedClock;
use sotto_core::identity::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};
use tempfile::TempDir;

struct Issuer {
    signer: Signer,
    verifier: TokenVerifier,
    _keys: TempDir,
}

fn verifier(keys: &[Value]) -> (TokenVerifier, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    std::fs::write(&path, key_set(keys)).unwrap();
    let keys = Keys::File(FileKeys::new(path));
    let leeway = Duration::from_secs(10);
    let clock = Arc::new(FixedClock(NOW));
    (TokenVerifier::new(keys, ISSUER.to_owned(), leeway, clock), directory)
}

fn issuer() -> Issuer {
    let signer = Signer::ec("k1");
    let (verifier, keys) = verifier(&[signer.jwk()]);
    Issuer { signer, verifier, _keys: keys }
}

impl Issuer {
    async fn verify(&self, jwt: SecretString) -> Result<u64, VerifyError> {
        let verified = self.verifier.verify(jwt, &audience("bao"), &pod()).await;
        verified.map(|verified| verified.expires)
    }

    /// A token that is good but for one change of its claims.
    async fn with_claims(&self, change: impl FnOnce(&mut Value)) -> Result<u64, VerifyError> {
        let mut claims = claims("bao");
        change(&mut claims);
        self.verify(self.signer.sign(&self.signer.header(), &claims)).await
    }

    async fn with_header(&self, header: Value) -> Result<u64, VerifyError> {
        self.verify(self.signer.sign(&header, &claims("bao"))).await
    }
}

fn without(claims: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    claims.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
}

#[tokio::test]
async fn a_pods_own_token_is_believed_whichever_key_signed_it() {
    let (ec, rsa) = (Signer::ec("ec"), Signer::rsa("rsa"));
    // Two families in one set: one Validation for both would refuse every token.
    let (verifier, _keys) = verifier(&[rsa.jwk(), ec.jwk()]);
    for signer in [ec, rsa] {
        let verified = verifier.verify(signer.mint("bao"), &audience("bao"), &pod()).await;
        assert_eq!(verified.ok().unwrap().expires, NOW + 540);
    }
}

#[tokio::test]
async fn an_audience_that_is_missing_or_not_text_is_refused() {
    let issuer = issuer();
    let missing = Err(VerifyError::MissingClaim("aud"));
    assert_eq!(issuer.with_claims(|claims| without(claims, "/aud")).await, missing);
    assert_eq!(issuer.with_claims(|claims| claims["aud"] = json!([])).await, missing);
    assert_eq!(issuer.with_claims(|claims| claims["aud"] = json!(null)).await, missing);
    for wrong in [json!(123), json!({"bao": 1}), json!(["bao", 1]), json!(true)] {
        let error = issuer.with_claims(|claims| claims["aud"] = wrong).await;
        assert_eq!(error, Err(VerifyError::MalformedClaim("aud")));
    }
    assert!(issuer.with_claims(|claims| claims["aud"] = json!("bao")).await.is_ok());
    assert!(issuer.with_claims(|claims| claims["aud"] = json!(["x", "bao"])).await.is_ok());
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let error = issuer().with_claims(|claims| claims["aud"] = json!(["vault", "bao2"])).await;
    assert_eq!(error, Err(VerifyError::Audience { wanted: audience("bao") }));
}

#[tokio::test]
async fn an_issuer_that_is_another_or_not_text_is_refused() {
    let issuer = issuer();
    let error = issuer.with_claims(|claims| claims["iss"] = json!("https://evil.example")).await;
    assert_eq!(error, Err(VerifyError::Issuer { wanted: ISSUER.to_owned() }));
    for wrong in [json!([ISSUER]), json!({ ISSUER: 1 }), json!(1)] {
        let error = issuer.with_claims(|claims| claims["iss"] = wrong).await;
        assert_eq!(error, Err(VerifyError::MalformedClaim("iss")));
    }
}

#[tokio::test]
async fn times_are_kept_but_for_a_small_leeway() {
    let issuer = issuer();
    let expired = |ago: u64| move |claims: &mut Value| claims["exp"] = json!(NOW - ago);
    assert!(issuer.with_claims(expired(9)).await.is_ok());
    let error = issuer.with_claims(expired(10)).await;
    assert_eq!(error, Err(VerifyError::Expired { seconds: 10 }));
    // jsonwebtoken's default leeway of a minute.
    let error = issuer.with_claims(expired(45)).await;
    assert_eq!(error, Err(VerifyError::Expired { seconds: 45 }));
    let early = |after: u64| move |claims: &mut Value| claims["nbf"] = json!(NOW + after);
    assert!(issuer.with_claims(early(10)).await.is_ok());
    let error = issuer.with_claims(early(11)).await;
    assert_eq!(error, Err(VerifyError::NotYetValid { seconds: 11 }));
    for wrong in [json!("1800000540"), json!(1.8e9), json!(-1)] {
        let error = issuer.with_claims(|claims| claims["exp"] = wrong).await;
        assert_eq!(error, Err(VerifyError::MalformedClaim("exp")));
    }
}

#[tokio::test]
async fn every_claim_is_required() {
    let issuer = issuer();
    for (path, claim) in [
        ("/iss", "iss"),
        ("/sub", "sub"),
        ("/aud", "aud"),
        ("/exp", "exp"),
        ("/nbf", "nbf"),
        ("/kubernetes.io", "kubernetes.io.namespace"),
        ("/kubernetes.io/namespace", "kubernetes.io.namespace"),
        ("/kubernetes.io/pod", "kubernetes.io.pod.name"),
        ("/kubernetes.io/pod/uid", "kubernetes.io.pod.uid"),
        ("/kubernetes.io/serviceaccount", "kubernetes.io.serviceaccount.name"),
        ("/kubernetes.io/node", "kubernetes.io.node.name"),
    ] {
        let error = issuer.with_claims(|claims| without(claims, path)).await;
        assert_eq!(error, Err(VerifyError::MissingClaim(claim)));
    }
}

#[tokio::test]
async fn another_pods_token_is_refused_by_the_claim_that_differs() {
    let issuer = issuer();
    for (path, error) in [
        ("/kubernetes.io/namespace", VerifyError::Namespace),
        ("/kubernetes.io/serviceaccount/name", VerifyError::ServiceAccount),
        ("/kubernetes.io/pod/name", VerifyError::PodName),
        ("/kubernetes.io/pod/uid", VerifyError::PodUid),
        ("/kubernetes.io/node/name", VerifyError::Node),
        ("/sub", VerifyError::Subject),
    ] {
        let change = |claims: &mut Value| *claims.pointer_mut(path).unwrap() = json!("another");
        assert_eq!(issuer.with_claims(change).await, Err(error), "{path}");
    }
}

#[tokio::test]
async fn a_volume_of_another_pod_refuses_the_same_token() {
    let issuer = issuer();
    let other = |change: fn(&mut WorkloadIdentity)| {
        let mut pod = pod();
        change(&mut pod);
        pod
    };
    for (pod, wanted) in [
        (other(|pod| pod.namespace = Namespace::parse("shop").unwrap()), VerifyError::Namespace),
        (other(|pod| pod.pod_name = PodName::parse("x").unwrap()), VerifyError::PodName),
        (other(|pod| pod.pod_uid = PodUid::parse("x").unwrap()), VerifyError::PodUid),
        (other(|pod| pod.node = NodeName::parse("x").unwrap()), VerifyError::Node),
        (
            other(|pod| pod.service_account = ServiceAccountName::parse("x").unwrap()),
            VerifyError::ServiceAccount,
        ),
    ] {
        let jwt = issuer.signer.mint("bao");
        let verified = issuer.verifier.verify(jwt, &audience("bao"), &pod).await;
        assert_eq!(verified.err(), Some(wanted));
    }
}

#[tokio::test]
async fn a_critical_header_is_refused_whatever_it_holds() {
    let issuer = issuer();
    for crit in [json!(["b64"]), json!([]), json!(null), json!("x")] {
        let header = json!({"alg": "ES256", "kid": "k1", "crit": crit});
        assert_eq!(issuer.with_header(header).await, Err(VerifyError::Critical));
    }
}

#[tokio::test]
async fn a_token_that_is_not_signed_is_refused() {
    let issuer = issuer();
    for none in ["none", "None", "NONE"] {
        let body = unsigned(&json!({"alg": none, "kid": "k1"}), &claims("bao"));
        for jwt in [format!("{body}."), format!("{body}.AAAA")] {
            let error = issuer.verify(SecretString::new(jwt)).await;
            assert_eq!(error, Err(VerifyError::NotSigned));
        }
    }
}

#[tokio::test]
async fn a_public_key_cannot_be_used_as_a_shared_one() {
    // The classic confusion: an HMAC over the public key's own bytes.
    let signer = Signer::rsa("k1");
    let (verifier, _keys) = verifier(&[signer.jwk()]);
    let body = unsigned(&json!({"alg": "HS256", "kid": "k1"}), &claims("bao"));
    let public = signer.jwk().to_string();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, body.as_bytes());
    let jwt = SecretString::new(format!("{body}.{}", encode(tag.as_ref())));
    let error = verifier.verify(jwt, &audience("bao"), &pod()).await.err();
    assert_eq!(error, Some(VerifyError::SharedKey("HS256".to_owned())));
}

#[tokio::test]
async fn a_shared_key_in_the_set_signs_nothing() {
    let shared =
        json!({"kty": "oct", "kid": "s", "k": encode(b"0123456789abcdef0123456789abcdef")});
    let (verifier, _keys) = verifier(&[Signer::ec("k1").jwk(), shared]);
    let jwt = Signer::ec("s").sign(&json!({"alg": "ES256", "kid": "s"}), &claims("bao"));
    let error = verifier.verify(jwt, &audience("bao"), &pod()).await.err();
    let fault = KeyFault::Shared;
    assert_eq!(error, Some(VerifyError::UnusableKey { kid: "s".to_owned(), fault }));
}

#[tokio::test]
async fn a_key_for_encryption_signs_nothing() {
    let signer = Signer::ec("enc");
    let mut entry = signer.jwk();
    entry["use"] = json!("enc");
    let (verifier, _keys) = verifier(&[Signer::ec("k1").jwk(), entry]);
    let error = verifier.verify(signer.mint("bao"), &audience("bao"), &pod()).await.err();
    let fault = KeyFault::NotForSignatures;
    assert_eq!(error, Some(VerifyError::UnusableKey { kid: "enc".to_owned(), fault }));
}

#[tokio::test]
async fn a_token_cannot_choose_another_algorithm_than_its_keys() {
    let issuer = issuer();
    for said in ["ES384", "RS256", "PS256", "EdDSA"] {
        let error = issuer.with_header(json!({"alg": said, "kid": "k1"})).await;
        let wanted = Algorithm::ES256;
        assert_eq!(error, Err(VerifyError::Algorithm { said: said.to_owned(), wanted }));
    }
    for said in ["ES512", "XX", "es256"] {
        let error = issuer.with_header(json!({"alg": said, "kid": "k1"})).await;
        assert_eq!(error, Err(VerifyError::UnsupportedAlgorithm(said.to_owned())));
    }
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let issuer = issuer();
    let forged = Signer::ec("k1").mint("bao");
    assert_eq!(issuer.verify(forged).await, Err(VerifyError::Signature));
    let good = issuer.signer.mint("bao");
    let (body, signature) = good.expose().rsplit_once('.').unwrap();
    let (header, _) = body.split_once('.').unwrap();
    let mut other = claims("bao");
    other["exp"] = json!(NOW + 999_999);
    let swapped = format!("{header}.{}.{signature}", encode(other.to_string().as_bytes()));
    assert_eq!(issuer.verify(SecretString::new(swapped)).await, Err(VerifyError::Signature));
}

#[tokio::test]
async fn a_key_that_is_not_published_or_not_named_is_refused() {
    let issuer = issuer();
    let error = issuer.with_header(json!({"alg": "ES256", "kid": "k2\n"})).await;
    assert_eq!(error, Err(VerifyError::UnknownKey("k2".to_owned())));
    let error = issuer.with_header(json!({"alg": "ES256"})).await;
    assert_eq!(error, Err(VerifyError::NoKeyId));
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let issuer = issuer();
    let good = issuer.signer.mint("bao");
    let good = good.expose();
    for text in ["", ".", "..", "a.b", &format!("{good}.x"), &format!("x{good}"), &good[1..]] {
        let error = issuer.verify(SecretString::new(text.to_owned())).await;
        assert_eq!(error, Err(VerifyError::NotAToken), "{text:?}");
    }
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    let error = issuer.verify(SecretString::new(long)).await;
    assert_eq!(error, Err(VerifyError::TooLong(MAX_TOKEN_BYTES + 1)));
}

#[tokio::test]
async fn no_message_repeats_the_token() {
    let issuer = issuer();
    let token = issuer.signer.sign(&issuer.signer.header(), &claims("other"));
    let parts: Vec<_> = token.expose().split('.').map(str::to_owned).collect();
    let message = issuer.verify(token).await.unwrap_err().to_string();
    assert!(parts.iter().all(|part| !message.contains(part.as_str())));
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in "[a-zA-Z0-9_.=-]{0,200}") {
        prop_assert!(read_header(&text).is_err() || text.contains('.'));
    }
}

fn own() -> TokenVerifier {
    TokenVerifier::of_own_token(Duration::from_secs(10), Arc::new(FixedClock(NOW)))
}

#[tokio::test]
async fn an_own_token_is_compared_with_the_pod_whoever_signed_it() {
    let stranger = Signer::ec("nobody knows it");
    let own = own();
    let verify = async |token| {
        let verified = own.verify(token, &audience("bao"), &pod()).await;
        verified.map(|verified| verified.expires)
    };
    assert_eq!(verify(stranger.mint("bao")).await, Ok(NOW + 540));
    let cases = [
        ("/aud", json!(["other"]), VerifyError::Audience { wanted: audience("bao") }),
        ("/exp", json!(NOW - 60), VerifyError::Expired { seconds: 60 }),
        ("/nbf", json!(NOW + 60), VerifyError::NotYetValid { seconds: 60 }),
        ("/kubernetes.io/namespace", json!("shop"), VerifyError::Namespace),
        ("/kubernetes.io/pod/name", json!("web-1"), VerifyError::PodName),
        ("/kubernetes.io/pod/uid", json!("uid-2"), VerifyError::PodUid),
        ("/kubernetes.io/serviceaccount/name", json!("other"), VerifyError::ServiceAccount),
        ("/kubernetes.io/node/name", json!("node-2"), VerifyError::Node),
        ("/sub", json!("system:serviceaccount:shop:web"), VerifyError::Subject),
    ];
    for (path, value, error) in cases {
        let mut claims = claims("bao");
        *claims.pointer_mut(path).unwrap() = value;
        let token = stranger.sign(&stranger.header(), &claims);
        assert_eq!(verify(token).await, Err(error), "{path}");
    }
    for text in ["", "..", "a.b", "x.y.z"] {
        assert_eq!(verify(SecretString::new(text.to_owned())).await, Err(VerifyError::NotAToken));
    }
}

#[tokio::test]
async fn what_an_own_token_may_be_signed_by_nobody_elses_may() {
    let issuer = issuer();
    let forged = || Signer::ec("k1").mint("bao");
    assert!(own().verify(forged(), &audience("bao"), &pod()).await.is_ok());
    assert_eq!(issuer.verify(forged()).await, Err(VerifyError::Signature));
}
