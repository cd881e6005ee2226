use proptest::prelude::*;
use sotto_core::limits::Limits;

use super::bench::*;
use crate::plan::{Encoding, ReadMethod};

#[test]
fn every_key_of_an_object_is_read_as_its_users_write_it() {
    let plan = objects(
        "
- objectName: db-password
  secretPath: secret/data/x?version=3
  secretKey: password
  method: GET
  filePermission: 0600
  encoding: Base64
- objectName: tls/server.crt
  secretPath: pki/issue/web
  method: PUT
  secretArgs: {common_name: x, ttl: 24h, exclude: yes, n: 3}
- objectName: all
  secretPath: secret/data/x
",
    )
    .unwrap();
    let source = source(&plan);
    let paths: Vec<_> = plan.objects.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(paths, ["db-password", "tls/server.crt", "all"]);
    assert_eq!(plan.objects[0].mode.unwrap().bits(), 0o600);
    assert_eq!(source.picks[0].key.as_deref(), Some("password"));
    assert_eq!(source.picks[0].encoding, Encoding::Base64);
    assert_eq!(source.requests[0].path.to_string(), "secret/data/x?version=3");
    assert_eq!(source.requests[1].method, ReadMethod::Put);
    let args = serde_json::Value::from(source.requests[1].args.clone().unwrap());
    assert_eq!(
        args,
        serde_json::json!({"common_name": "x", "ttl": "24h", "exclude": "yes", "n": 3})
    );
    assert_eq!((source.picks[2].key.as_deref(), plan.objects[2].mode), (None, None));
    assert_eq!(source.requests.len(), 3, "another version is another request");
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn a_permission_is_octal_in_both_versions_of_yaml_or_decimal() {
    let mode = |written: &str| {
        let list = format!("[{{objectName: a, secretPath: x, filePermission: {written}}}]");
        objects(&list).map(|plan| plan.objects[0].mode.map(|mode| mode.bits()))
    };
    for (written, bits) in [
        ("0600", 0o600),
        ("0o600", 0o600),
        ("384", 0o600),
        ("0440", 0o440),
        ("0777", 0o777),
        ("0x100", 0o400),
    ] {
        assert_eq!(mode(written).unwrap(), Some(bits), "{written}");
    }
    for written in ["0", "", "~", "null"] {
        assert_eq!(mode(written).unwrap(), None, "{written:?}");
    }
    for written in [
        "600",
        "01777",
        "'0600'",
        "\"0440\"",
        "-1",
        "0888",
        "rw",
        "6.0",
        "true",
        "[1]",
        "99999999999",
    ] {
        let texts = mode(written).unwrap_err();
        let text = texts[0].to_string();
        assert!(text.starts_with("object 0 (a): filePermission"), "{written}: {text}");
        assert!(text.contains("0440"), "{text}");
    }
}

#[test]
fn objects_with_the_same_request_share_it() {
    let plan = objects(
        "
- {objectName: a, secretPath: pki/issue/x, method: PUT, secretArgs: {n: 1, m: 2}, secretKey: certificate}
- {objectName: b, secretPath: /v1/pki/issue/x, method: PUT, secretArgs: {m: 2, n: 1}, secretKey: private_key}
- {objectName: c, secretPath: pki/issue/x, method: POST, secretArgs: {n: 1, m: 2}}
- {objectName: d, secretPath: pki/issue/x, method: PUT, secretArgs: {n: 2, m: 2}}
- {objectName: e, secretPath: pki/issue/x, method: PUT}
- {objectName: f, secretPath: pki/issue/x}",
    )
    .unwrap();
    let requests: Vec<_> = source(&plan).picks.iter().map(|pick| pick.request).collect();
    assert_eq!(requests, [0, 0, 1, 2, 3, 4]);
}

#[test]
fn a_text_that_looks_like_a_number_stays_as_written() {
    let plan = objects("[{objectName: 0123, secretPath: kv/1.10, secretKey: 1.10}]").unwrap();
    assert_eq!(plan.objects[0].path.as_str(), "0123");
    assert_eq!(source(&plan).picks[0].key.as_deref(), Some("1.10"));
}

#[test]
fn every_fault_of_every_object_comes_with_its_index_and_name() {
    let long = "x".repeat(256);
    let texts = texts(objects(&format!(
        r#"
- {{objectName: ../x, secretPath: a}}
- {{objectName: a//b, secretPath: a}}
- {{objectName: "nul\0", secretPath: a}}
- {{objectName: {long}, secretPath: a}}
- {{objectName: ..data, secretPath: a}}
- {{objectName: same, secretPath: a}}
- {{objectName: same, secretPath: a}}
- {{objectName: same/below, secretPath: a}}
- {{objectName: deep/file, secretPath: a}}
- {{objectName: deep, secretPath: a}}
- {{secretPath: a}}
- {{objectName: l}}
- {{objectName: m, secretPath: a/../b, method: DELETE, encoding: rot13, filePermission: 600}}
"#
    )));
    let expected = [
        "object 0 (../x): objectName: the name has a \".\" or",
        "object 1 (a//b): objectName: the name has an empty component",
        "object 2 (\"nul\\0\"): objectName: the name has a byte that isn't printable",
        "object 3 (\"xxx",
        "object 4 (..data): objectName: the name begins with \"..\"",
        "object 6 (same): objectName is the same as that of object 5",
        "object 7 (same/below): objectName needs \"same\" both as a file and as a directory: rename it or object 5",
        "object 9 (deep): objectName needs \"deep\" both as a file and as a directory: rename it or object 8",
        "object 10 (without a name): objectName is missing",
        "object 11 (l): secretPath is missing",
        "object 12 (m): filePermission has bits other than 0777 (decimal 600 is octal 01130)",
        "object 12 (m): encoding \"rot13\"",
        "object 12 (m): secretPath has a \".\" or \"..\" segment",
        "object 12 (m): method \"DELETE\": write GET, PUT or POST",
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, start) in texts.iter().zip(expected) {
        assert!(text.starts_with(start), "{text:?} does not begin with {start:?}");
    }
}

#[test]
fn no_list_an_empty_list_and_what_is_not_a_list_are_refused() {
    for empty in ["", "   ", "[]", "# nothing"] {
        assert_eq!(
            texts(objects(empty)),
            ["parameter objects is missing or empty: list at least one object"],
            "{empty:?}"
        );
    }
    for wrong in [
        "just text",
        "objectName: a",
        "- [a, b]",
        "- just text",
        "- {objectName: [a]}",
        "- {objectName: a, objectName: b, secretPath: c}",
        "- {objectName: a",
        "- &a {objectName: a}\n- *b",
        "- {objectName: a, secretPath: b, secretArgs: [1]}",
        "- ",
    ] {
        let texts = texts(objects(wrong));
        assert!(
            texts[0].starts_with("parameter objects is not a YAML list of objects: "),
            "{wrong:?}: {texts:?}"
        );
        assert!(texts[0].len() < 300);
    }
}

#[test]
fn a_list_that_grows_by_aliases_is_refused() {
    let mut bomb = "- &a0 {objectName: x, secretPath: y}\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("- &a{level} [{aliases}]\n"));
    }
    assert!(texts(objects(&bomb))[0].starts_with("parameter objects is not"));
}

#[test]
fn the_limit_of_objects_is_kept() {
    let list: String =
        (0..1_001).map(|n| format!("- {{objectName: o{n}, secretPath: p}}\n")).collect();
    let texts = texts(objects(&list));
    assert_eq!(texts.len(), 1);
    assert!(
        texts[0].starts_with("parameter objects has 1001 objects: at most 1000; "),
        "{texts:?}"
    );
    let class = class(
        "openbao",
        &[("objects", "[{objectName: a, secretPath: p}, {objectName: b, secretPath: p}]")],
    );
    assert!(of_class(&class, &Limits { objects: 2, ..Limits::default() }).is_ok());
    assert!(of_class(&class, &Limits { objects: 1, ..Limits::default() }).is_err());
}

#[test]
fn what_is_ignored_is_said() {
    let plan = openbao(&[
        ("vaultRolename", "typo"),
        ("csi.storage.k8s.io/pod.name", "x"),
        ("objects", "[{objectName: a, secretPath: p, filePermision: 0400, encoding: hex, secretArgs: {x: 1}}]"),
    ])
    .unwrap();
    assert_eq!(
        plan.warnings,
        [
            "parameter \"vaultRolename\" is unknown and was ignored",
            "object 0 (a): key \"filePermision\" is unknown and was ignored",
            "object 0 (a): secretArgs are ignored with method GET: write method: PUT",
            "object 0 (a): encoding is ignored without secretKey",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_what_is_accepted_is_consistent(list in "[-\\[\\]{}:, a-z/0-9.&*\n\"']{0,120}") {
        if let Ok(plan) = objects(&list) {
            let source = source(&plan);
            prop_assert_eq!(plan.objects.len(), source.picks.len());
            prop_assert!(source.picks.iter().all(|pick| pick.request < source.requests.len()));
        }
    }

    #[test]
    fn names_are_accepted_as_core_accepts_them(name in "[a-z./ ]{1,12}") {
        let list = serde_json::json!([{ "objectName": name, "secretPath": "p" }]).to_string();
        let accepted = sotto_core::names::ObjectPath::parse(&name).is_ok();
        prop_assert_eq!(objects(&list).is_ok(), accepted, "{:?}", name);
    }
}

#[test]
fn a_list_whose_aliases_stand_for_megabytes_is_refused() {
    let list = |times: usize| {
        let all = |alias: &str| vec![alias; times].join(", ");
        format!(
            "- {{objectName: a, secretPath: p, method: PUT, secretArgs: {{a: &s \"{}\", b: &b [{}], c: &c [{}], d: [{}]}}}}",
            "x".repeat(6 << 10),
            all("*s"),
            all("*b"),
            all("*c")
        )
    };
    assert!(list(20).len() < 16 << 10, "it is a short text");
    assert!(objects(&list(20)).is_err());
    assert!(objects(&list(3)).is_ok(), "aliases as such are read");
}
