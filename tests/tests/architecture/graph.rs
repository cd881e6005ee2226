//! The dependency graph as `cargo metadata` states it: normal and build edges, not those of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Names of packages and who depends on whom.
pub(crate) struct Graph {
    edges: BTreeMap<String, BTreeSet<String>>,
    /// Licence expression of every package.
    pub(crate) licences: BTreeMap<String, String>,
}

impl Graph {
    pub(crate) fn of_workspace() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::from_metadata(&serde_json::from_slice(&output.stdout).expect("cargo writes JSON"))
    }

    pub(crate) fn from_edges(edges: &[(&str, &str)]) -> Self {
        let mut graph = Self { edges: BTreeMap::new(), licences: BTreeMap::new() };
        for (from, to) in edges {
            graph.edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    }

    fn from_metadata(metadata: &Value) -> Self {
        let mut names = BTreeMap::new();
        let mut graph = Self::from_edges(&[]);
        for package in list(&metadata["packages"]) {
            names.insert(text(&package["id"]), text(&package["name"]));
            graph.licences.insert(text(&package["name"]), text(&package["license"]));
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let targets = list(&node["deps"])
                .iter()
                .filter(|edge| list(&edge["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"))
                .map(|edge| names[&text(&edge["pkg"])].clone());
            graph.edges.entry(names[&text(&node["id"])].clone()).or_default().extend(targets);
        }
        graph
    }

    /// Edges between our crates that no drawn arrow, nor a chain of them, allows. The tests' crate
    /// may use all.
    pub(crate) fn arrows_outside(&self, arrows: &[(&str, &[&str])]) -> Vec<String> {
        let drawn = Self::from_edges(
            &arrows
                .iter()
                .flat_map(|(from, to)| to.iter().map(move |to| (*from, *to)))
                .collect::<Vec<_>>(),
        );
        let ours = |name: &str| name.starts_with("sotto-") && name != "sotto-tests";
        let mut outside = Vec::new();
        for (from, targets) in self.edges.iter().filter(|(from, _)| ours(from)) {
            let allowed = drawn.reachable_from(from);
            let stray = targets.iter().filter(|to| ours(to) && !allowed.contains(*to));
            outside.extend(stray.map(|to| format!("{from} -> {to}")));
        }
        outside
    }

    /// Everything that `name` links, directly or not.
    pub(crate) fn reachable_from(&self, name: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut next = vec![name.to_owned()];
        while let Some(name) = next.pop() {
            for to in self.edges.get(&name).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    }
}

/// Everything that a package links for Linux, as `cargo tree` resolves its features by itself
/// (`cargo metadata` also lists optional crates that nobody turns on).
pub(crate) fn linked_by(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}", "--package", package])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Which of `wanted` are in `linked`.
pub(crate) fn found<'a>(linked: &BTreeSet<String>, wanted: &[&'a str]) -> Vec<&'a str> {
    wanted.iter().copied().filter(|name| linked.contains(*name)).collect()
}

/// Whether a choice of the SPDX expression is wholly on the list: every AND part needs one OR part.
pub(crate) fn licence_allowed(expression: &str, allowed: &[&str]) -> bool {
    let flat = expression.replace('/', " OR ");
    !flat.trim().is_empty()
        && flat.split(" AND ").all(|part| {
            part.split(" OR ").any(|one| allowed.contains(&one.trim().trim_matches(['(', ')'])))
        })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
