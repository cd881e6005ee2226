use std::path::Path;

use super::Mode;
use super::class::{Class, Example};
use super::live::{Change, Live, Withdrawal};
use super::paint::Paint;
use super::reader::{self, Entry, File, Seen};
use super::report::{Intruder, PodView, ProcessView, Report, StoreView, VolumeView};
use super::search::{Search, Searched};
use super::socket::Attempt;
use super::text;
use crate::store::Peer;

use serde_json::json;

fn process(name: &'static str, uid: &str, mask: &str) -> ProcessView {
    ProcessView { name, pid: 7, uid: uid.to_owned(), capabilities: mask.to_owned() }
}

fn live() -> Live {
    let said = |result: &str| vec!["asked 1".to_owned(), format!("csi-1 payments-db {result}")];
    Live {
        change: Change {
            name: "db-password".to_owned(),
            before: "fake-password-1".to_owned(),
            after: "fake-password-2".to_owned(),
            said: said("changed"),
            events: vec!["MOVED_TO ..data".to_owned()],
            milliseconds: 77,
        },
        withdrawal: Withdrawal {
            name: "db-password".to_owned(),
            said: said("refused"),
            opened: "(Permission denied (os error 13))".to_owned(),
            read_on: "Permission denied (os error 13)".to_owned(),
            milliseconds: 1_088,
            healed: "fake-password-3".to_owned(),
        },
    }
}

fn report() -> Report {
    let entry = |path: &str, kind: &str, target: Option<&str>| Entry {
        path: path.to_owned(),
        kind: kind.to_owned(),
        mode: "0440".to_owned(),
        uid: 0,
        gid: 2000,
        size: 20,
        target: target.map(str::to_owned),
    };
    Report {
        mode: Mode::Node,
        pod: PodView {
            name: "payments/checkout-0".to_owned(),
            uid: "u".to_owned(),
            service_account: "checkout".to_owned(),
        },
        claims: json!({"iss": "https://i.invalid", "aud": ["bao"], "exp": 700, "iat": 100,
            "sub": "system:serviceaccount:payments:checkout",
            "kubernetes.io": {"pod": {"name": "checkout-0", "uid": "u"}, "node": {}}}),
        class: Class::of(&Example::of(Mode::Node)).unwrap(),
        store: StoreView {
            name: "main",
            address: "https://127.0.0.1:1".to_owned(),
            server: "sotto-dev store",
            tls: Peer {
                protocol: "TLSv1_3".to_owned(),
                cipher_suite: "TLS13_AES_256_GCM_SHA384".to_owned(),
                key_exchange: "X25519MLKEM768".to_owned(),
                client: Some("sotto-node".to_owned()),
            },
            logins: 1,
            reads: 2,
        },
        volume: VolumeView {
            driver: "csi.sotto.dev".to_owned(),
            target: "/t".to_owned(),
            shown_at: "/m/mnt/secrets".to_owned(),
            mount: "ro,nosuid".to_owned(),
        },
        seen: Seen {
            uid: 1000,
            gid: 2000,
            entries: vec![
                entry("db-username", "link", Some("..data/db-username")),
                entry("tls", "link", Some("..data/tls")),
                entry("..1/tls/server.key", "file", None),
            ],
            files: vec![
                File { name: "db-username".to_owned(), content: "fake-username-1".to_owned() },
                File { name: "tls/server.key".to_owned(), content: "two\nlines\n".to_owned() },
            ],
            write: "Read-only file system (os error 30)".to_owned(),
        },
        live: live(),
        audit: vec![json!({"time": "2026-11-25T01:02:03.004Z", "action": "open",
            "decision": "allowed", "namespace": "payments", "pod_name": "checkout-0",
            "object": "db-username", "generation": 1, "uid": 1000, "gid": 2000, "pid": 7})],
        intruder: Intruder {
            pod: "payments/web-0".to_owned(),
            service_account: "web".to_owned(),
            error: "store main refuses payments/web: policy".to_owned(),
            mounted: false,
        },
        socket: Vec::new(),
        search: None,
        processes: vec![
            process("sotto-csi", "0", "0000000000200000"),
            process("sotto-node", "65532", "0000000000000000"),
        ],
        notes: vec!["sotto-node keeps this process's uid".to_owned()],
        look: vec![("nsenter -t 7 -m ls".to_owned(), "the volume".to_owned())],
        milliseconds: 1234,
    }
}

#[test]
fn the_words_show_everything_that_the_issue_asks_for() {
    let mut out = Vec::new();
    text::write(&report(), Paint::never(), &mut out).unwrap();
    text::write_hints(&report(), Paint::never(), &mut out).unwrap();
    let words = String::from_utf8(out).unwrap();
    for wanted in [
        "payments/checkout-0",
        "system:serviceaccount:payments:checkout",
        "600 s after it was issued",
        "deploy/examples/payments.yaml",
        "secret/data/payments/checkout/db  password",
        "TLS 1.3, TLS13_AES_256_GCM_SHA384",
        "sotto-dev store",
        "client sotto-node",
        "db-username -> ..data/db-username",
        "as uid 1000 and gid 2000",
        "fake-username-1",
        "lines",
        "Read-only file system",
        "01:02:03.004 open         allowed  payments/checkout-0 db-username  generation 1  uid 1000",
        "store main refuses payments/web: policy",
        "is anything mounted for it: no",
        "77 ms later",
        "fake-password-1",
        "fake-password-2",
        "MOVED_TO ..data",
        "1088 ms later, confirmed by a second read",
        "an open              (Permission denied",
        "a file open before   Permission denied",
        "fake-password-3",
        "uid 0      CAP_SYS_ADMIN only",
        "uid 65532  no capability",
        "keeps this process's uid",
        "1.2 s",
        "nsenter -t 7 -m ls",
        "Ctrl-C",
    ] {
        assert!(words.contains(wanted), "{wanted:?} is missing in:\n{words}");
    }
    assert!(!words.contains('\u{1b}'), "no colour where none is wanted");
}

#[test]
fn the_class_is_the_one_of_the_example() {
    let class = Class::of(&Example::of(Mode::Node)).unwrap();
    assert_eq!((class.name.as_str(), class.provider.as_str()), ("payments/payments-db", "openbao"));
    let names: Vec<_> = class.objects.iter().map(|it| it.object_name.as_str()).collect();
    assert_eq!(names, ["db-username", "db-password", "tls/server.crt", "tls/server.key"]);
    // The same class in both modes: only who serves it differs.
    let of_sidecar = Class::of(&Example::of(Mode::Sidecar)).unwrap();
    let names_of =
        |class: &Class| class.objects.iter().map(|it| it.object_name.clone()).collect::<Vec<_>>();
    assert_eq!((&of_sidecar.name, names_of(&of_sidecar)), (&class.name, names_of(&class)));
}

#[test]
fn in_sidecar_mode_the_words_end_with_the_socket_and_the_search() {
    let searched = |name| Searched { name, pid: 7, token: 0, secrets: 0, canary: 2 };
    let mut report = report();
    report.mode = Mode::Sidecar;
    report.socket = vec![Attempt {
        who: "a process of web-0".to_owned(),
        reason: "it is of another pod".to_owned(),
    }];
    report.search = Some(Search {
        processes: vec![searched("sotto-csi"), searched("sotto-node")],
        values: 8,
        hidden_in_the_sidecar: Some(4096),
    });
    let mut out = Vec::new();
    text::write(&report, Paint::never(), &mut out).unwrap();
    let words = String::from_utf8(out).unwrap();
    for wanted in [
        "its token is in its own sidecar, and kubelet sends the driver none",
        "sotto-agent, in the pod, asks the store",
        "the audit record of its sidecar says",
        "would its application be started: no",
        "by itself, within the refresh interval of 1 s",
        "a process of web-0:",
        "it is of another pod",
        "8 values",
        "token and secrets: 0 hits",
        "4 KiB of memfd_secret",
    ] {
        assert!(words.contains(wanted), "{wanted:?} is missing in:\n{words}");
    }
    report.search.as_mut().unwrap().processes[0].secrets = 1;
    let mut out = Vec::new();
    text::write(&report, Paint::never(), &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("token and secrets: 1 hits"));
}

#[test]
fn a_missing_directory_is_named_by_the_reader() {
    let error = reader::print(Path::new("/nonexistent/secrets"), &[]).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/secrets"));
}
