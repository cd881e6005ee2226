//! The workspace's shape, checked over `cargo metadata`: who may depend on whom, what the privileged
//! binary links, which licences are in the graph, how long a file is, where unsafe code is.
//! Each check has a test that shows it failing.

#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/sources.rs"]
mod sources;

use graph::Graph;

/// Arrows between the workspace's crates, one way; a crate may also use whatever its arrows reach.
const ARROWS: &[(&str, &[&str])] = &[
    ("sotto-proto", &[]),
    ("sotto-core", &[]),
    ("sotto-runtime", &["sotto-core"]),
    ("sotto-fuse", &["sotto-core"]),
    ("sotto-supervisor", &[]),
    ("sotto-handoff", &["sotto-core", "sotto-proto"]),
    ("sotto-store", &["sotto-core", "sotto-proto"]),
    (
        "sotto-volume",
        &[
            "sotto-core",
            "sotto-runtime",
            "sotto-handoff",
            "sotto-store",
            "sotto-fuse",
            "sotto-supervisor",
        ],
    ),
    ("sotto-kubernetes", &["sotto-core"]),
    ("sotto-node", &["sotto-volume", "sotto-kubernetes"]),
    ("sotto-sidecar", &["sotto-volume"]),
    ("sotto-webhook", &["sotto-core", "sotto-runtime"]),
    ("sotto-csi", &["sotto-core", "sotto-runtime", "sotto-handoff", "sotto-proto"]),
    ("sotto-dev", &["sotto-core", "sotto-runtime", "sotto-proto"]),
];

/// What the privileged process must never link: TLS, HTTP clients, JSON web tokens, Kubernetes
/// clients, FUSE servers.
const FORBIDDEN_IN_DRIVER: &[&str] = &[
    "rustls",
    "tokio-rustls",
    "hyper-rustls",
    "native-tls",
    "openssl",
    "reqwest",
    "ring",
    "aws-lc-rs",
    "jsonwebtoken",
    "kube",
    "kube-client",
    "k8s-openapi",
    "fuser",
    "sotto-store",
    "sotto-fuse",
    "sotto-volume",
    "sotto-kubernetes",
    "sotto-dev",
];

/// What no binary for production links.
const FORBIDDEN_IN_AGENT: &[&str] = &["sotto-dev", "rcgen", "ring", "openssl", "native-tls"];

/// What the sidecar never links: it has no API token, and asks nobody but the driver and its store.
const FORBIDDEN_IN_SIDECAR: &[&str] =
    &["kube", "kube-client", "k8s-openapi", "sotto-kubernetes", "sotto-node"];

const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "ISC",
    "BSD-3-Clause",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
    "MIT-0",
    "BSL-1.0",
];

/// Crates that make system calls; every other one forbids unsafe code.
const MAY_HAVE_UNSAFE: &[&str] = &[
    "agent/runtime",
    "agent/handoff",
    "agent/supervisor",
    "agent/fuse",
    "agent/dev",
    "csi-driver",
    "tests",
];

#[test]
fn crates_depend_on_each_other_one_way() {
    assert_eq!(Graph::of_workspace().arrows_outside(ARROWS), Vec::<String>::new());
}

#[test]
fn an_arrow_that_is_not_drawn_is_detected() {
    let graph = Graph::from_edges(&[("sotto-core", "sotto-store"), ("sotto-node", "sotto-core")]);
    assert_eq!(graph.arrows_outside(ARROWS), ["sotto-core -> sotto-store"]);
}

#[test]
fn the_privileged_binary_links_nothing_that_parses_the_network() {
    let linked = graph::linked_by("sotto-csi");
    assert!(linked.contains("tonic"), "the graph is empty or was misread");
    assert_eq!(graph::found(&linked, FORBIDDEN_IN_DRIVER), Vec::<&str>::new());
}

#[test]
fn a_forbidden_crate_deep_in_the_graph_is_detected() {
    let found = graph::found(&graph::linked_by("sotto-node"), FORBIDDEN_IN_DRIVER);
    assert!(found.contains(&"rustls") && found.contains(&"fuser"), "{found:?}");
}

#[test]
fn the_agent_links_neither_the_development_tools_nor_a_second_crypto_library() {
    let linked = graph::linked_by("sotto-node");
    assert!(linked.contains("rustls"), "the graph is empty or was misread");
    assert_eq!(graph::found(&linked, FORBIDDEN_IN_AGENT), Vec::<&str>::new());
}

#[test]
fn the_sidecar_links_no_kubernetes_client() {
    let linked = graph::linked_by("sotto-sidecar");
    assert!(linked.contains("sotto-volume"), "the graph is empty or was misread");
    assert_eq!(graph::found(&linked, FORBIDDEN_IN_SIDECAR), Vec::<&str>::new());
    assert_eq!(graph::found(&linked, FORBIDDEN_IN_AGENT), Vec::<&str>::new());
    let found = graph::found(&graph::linked_by("sotto-node"), FORBIDDEN_IN_SIDECAR);
    assert!(found.contains(&"kube"), "it would not be detected: {found:?}");
}

#[test]
fn images_are_built_with_the_environment_of_every_build() {
    let root = sources::root();
    assert!(root.join(".cargo/config.toml").is_file());
    let copied = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    assert!(copied.lines().any(|line| line == "!.cargo"), "{copied}");
}

#[test]
fn every_licence_is_on_the_list() {
    let packages = Graph::of_workspace().licences;
    assert!(packages.len() > 100, "the graph is empty or was misread");
    let refused: Vec<_> =
        packages.iter().filter(|(_, licence)| !graph::licence_allowed(licence, LICENCES)).collect();
    assert!(refused.is_empty(), "not allowed: {refused:?}");
}

#[test]
fn a_licence_that_is_not_on_the_list_is_detected() {
    assert!(!graph::licence_allowed("GPL-3.0-only", LICENCES));
    assert!(!graph::licence_allowed("MIT AND GPL-3.0-only", LICENCES));
    assert!(!graph::licence_allowed("", LICENCES));
    assert!(graph::licence_allowed("GPL-2.0 OR MIT", LICENCES));
    assert!(graph::licence_allowed("(MIT OR Apache-2.0) AND Unicode-3.0", LICENCES));
}

#[test]
fn no_hand_written_file_is_over_400_lines() {
    let files = sources::hand_written();
    assert!(files.len() > 50, "the sources were not found");
    let long: Vec<_> = files.iter().filter(|file| file.lines > 400).collect();
    assert!(long.is_empty(), "split by what they own: {long:?}");
}

#[test]
fn unsafe_code_is_only_where_system_calls_are_made() {
    let stray: Vec<_> = sources::hand_written()
        .into_iter()
        .filter(|file| sources::has_unsafe(&file.text))
        .filter(|file| !MAY_HAVE_UNSAFE.iter().any(|at| file.path.starts_with(at)))
        .collect();
    assert!(stray.is_empty(), "unsafe code outside {MAY_HAVE_UNSAFE:?}: {stray:?}");
}

#[test]
fn unsafe_code_is_detected_but_not_in_comments() {
    assert!(sources::has_unsafe("fn f() { unsafe { g() } }"));
    assert!(sources::has_unsafe("unsafe impl Send for X {}"));
    assert!(!sources::has_unsafe("// unsafe { } is not used here\nfn f() {}"));
}
