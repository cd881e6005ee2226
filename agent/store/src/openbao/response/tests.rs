use proptest::prelude::*;

use super::*;

const KV2: &str = r#"{"request_id":"r1","lease_id":"","renewable":false,"lease_duration":0,
"data":{"data":{"password":"p\"1\n","port":5432,"on":true,"nested":{"a":[1,2]},"none":null,"cert":"Y2VydA==","hex":"00ff"},
"metadata":{"created_time":"2026-11-20T10:00:00.1Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":7}},
"wrap_info":null,"warnings":null,"auth":null}"#;
const KV1: &str =
    r#"{"lease_id":"","lease_duration":2764800,"renewable":false,"data":{"data":"plain","x":"1"}}"#;
const LEASED: &str = r#"{"lease_id":"database/creds/ro/abc","lease_duration":3600,"renewable":true,"data":{"username":"u","password":"p"}}"#;

fn pick(body: &str, key: Option<&str>, encoding: Encoding) -> Result<String, PickError> {
    let pick = Pick { request: 0, key: key.map(str::to_owned), encoding };
    let value = Response::parse(body.as_bytes()).unwrap().pick(&pick)?;
    Ok(String::from_utf8_lossy(value.expose()).into_owned())
}

#[test]
fn a_string_is_plain_and_anything_else_is_json() {
    for (key, value) in [
        ("password", "p\"1\n"),
        ("port", "5432"),
        ("on", "true"),
        ("nested", r#"{"a":[1,2]}"#),
        ("none", "null"),
    ] {
        assert_eq!(pick(KV2, Some(key), Encoding::Utf8).unwrap(), value, "{key}");
    }
}

#[test]
fn the_data_of_kv_version_2_is_unwrapped_and_that_of_version_1_is_not() {
    assert_eq!(pick(KV1, Some("x"), Encoding::Utf8).unwrap(), "1");
    assert_eq!(pick(KV1, Some("data"), Encoding::Utf8).unwrap(), "plain");
    assert_eq!(pick(KV2, Some("data"), Encoding::Utf8), Err(PickError::NoSuchKey));
}

#[test]
fn values_are_decoded_as_the_class_says() {
    assert_eq!(pick(KV2, Some("cert"), Encoding::Base64).unwrap(), "cert");
    assert_eq!(pick(KV2, Some("cert"), Encoding::Hex), Err(PickError::BadEncoding));
    let pick = Pick { request: 0, key: Some("hex".to_owned()), encoding: Encoding::Hex };
    let value = Response::parse(KV2.as_bytes()).unwrap().pick(&pick).unwrap();
    assert_eq!(value.expose(), [0, 0xff]);
    assert!(hex(b"0").is_none() && hex(b"0g").is_none() && base64(b"====").is_none());
    assert_eq!(base64(b"Y2Vy\r\ndA==").unwrap().expose(), b"cert");
}

#[test]
fn the_whole_response_is_json_without_what_changes_each_time() {
    let whole = pick(KV2, None, Encoding::Utf8).unwrap();
    let value: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(value["data"]["data"]["port"], 5432);
    assert_eq!(value["data"]["metadata"]["version"], 7);
    assert_eq!(value["request_id"], "");
    let leased: serde_json::Value =
        serde_json::from_str(&pick(LEASED, None, Encoding::Utf8).unwrap()).unwrap();
    assert_eq!(leased["lease_id"], "database/creds/ro/abc");
    assert_eq!(leased["lease_duration"], 3600);
}

#[test]
fn versions_are_those_of_kv_version_2() {
    let version = |body: &str| Response::parse(body.as_bytes()).unwrap().version();
    assert_eq!(version(KV2).as_deref(), Some("7@2026-11-20T10:00:00.1Z"));
    assert_eq!(version(KV1), None);
    assert_eq!(version(LEASED), None);
}

#[test]
fn a_lease_is_there_only_with_an_id() {
    let lease = Response::parse(LEASED.as_bytes()).unwrap();
    assert_eq!(lease.lease(), Some(("database/creds/ro/abc", Duration::from_secs(3600), true)));
    assert_eq!(Response::parse(KV1.as_bytes()).unwrap().lease(), None);
}

#[test]
fn missing_deleted_and_destroyed_are_told_apart() {
    let gone = |destroyed: bool| {
        format!(
            r#"{{"data":{{"data":null,"metadata":{{"created_time":"t","deletion_time":"d","destroyed":{destroyed},"version":1}}}}}}"#
        )
    };
    let v2 = r#"{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#;
    for (body, absence) in [
        (r#"{"errors":[]}"#.to_owned(), Absence::Missing),
        (gone(false), Absence::Deleted),
        (gone(true), Absence::Destroyed),
        (v2.to_owned(), Absence::NoDataSegment),
    ] {
        assert_eq!(Response::parse(body.as_bytes()).unwrap().absence(), absence, "{body}");
    }
    assert!(Response::parse(gone(false).as_bytes()).unwrap().is_absent());
    assert!(!Response::parse(KV2.as_bytes()).unwrap().is_absent());
}

#[test]
fn an_answer_without_data_says_so() {
    assert_eq!(pick(r#"{"data":null}"#, None, Encoding::Utf8), Err(PickError::NoData));
    assert_eq!(pick("{}", Some("k"), Encoding::Utf8), Err(PickError::NoData));
    assert_eq!(pick(r#"{"data":["x"]}"#, Some("k"), Encoding::Utf8), Err(PickError::NoSuchKey));
    assert!(Response::parse(b"<html>").is_none());
}

proptest! {
    #[test]
    fn any_text_survives_json_base64_and_hex(text in ".{0,80}") {
        let hexed: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let body = serde_json::json!({ "data": {
            "plain": text, "base64": STANDARD.encode(&text), "hex": hexed,
        } }).to_string();
        for (key, encoding) in
            [("plain", Encoding::Utf8), ("base64", Encoding::Base64), ("hex", Encoding::Hex)]
        {
            prop_assert_eq!(&pick(&body, Some(key), encoding).unwrap(), &text);
        }
    }

    #[test]
    fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), key in ".{0,5}") {
        if let Some(response) = Response::parse(&body) {
            let pick = Pick { request: 0, key: Some(key), encoding: Encoding::Base64 };
            let _ = (response.version(), response.absence(), response.pick(&pick).err());
        }
    }
}
