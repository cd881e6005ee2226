//! What the documents promise is there: each test that SEMANTICS.md names, each file that a page links to.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Texts between single backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

/// What a statement names and isn't there.
fn missing_tests(page: &str) -> Vec<String> {
    let is_there = |name: &str| {
        if let Some((file, test)) = name.split_once("::") {
            let path = root().join("tests/tests").join(format!("{file}.rs"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            return text.contains(&format!("fn {test}(")) || text.contains(&format!("fn {test}<"));
        }
        !name.ends_with(".rs") || root().join(name).is_file()
    };
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(quoted).filter(|name| !is_there(name)).map(str::to_owned).collect()
}

/// Links to files of the repository that aren't there.
fn dead_links(page: &str, folder: &Path) -> Vec<String> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.starts_with("http") && !target.starts_with('#'));
    let path = |target: &str| folder.join(target.split('#').next().unwrap_or_default());
    files.filter(|target| !path(target).exists()).map(str::to_owned).collect()
}

#[test]
fn each_statement_names_a_test_that_is_there() {
    let page = std::fs::read_to_string(root().join("SEMANTICS.md")).expect("SEMANTICS.md");
    assert_eq!(missing_tests(&page), Vec::<String>::new());
    assert!(page.matches("::").count() > 20, "the page was not read");
}

#[test]
fn a_test_that_is_not_there_is_detected() {
    assert_eq!(missing_tests("| x | `semantics::no_such_test` |"), ["semantics::no_such_test"]);
    assert_eq!(missing_tests("| x | `agent/none.rs` |"), ["agent/none.rs"]);
}

#[test]
fn each_link_of_a_page_leads_somewhere() {
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "SEMANTICS.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "deploy/README.md",
        "deploy/MIGRATION.md",
        "deploy/MODES.md",
        "deploy/ENVIRONMENT.md",
        "PERFORMANCE.md",
        "tests/benches/README.md",
    ] {
        let path = root().join(page);
        let text = std::fs::read_to_string(&path).expect("a page can be read");
        let folder = path.parent().expect("a page is in a folder");
        assert_eq!(dead_links(&text, folder), Vec::<String>::new(), "{page}");
    }
}

#[test]
fn a_dead_link_is_detected() {
    assert_eq!(dead_links("see [x](nowhere.md)", &root()), ["nowhere.md"]);
}
