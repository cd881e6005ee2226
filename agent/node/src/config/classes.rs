//! `classes` and `kubernetes`: where SecretProviderClasses come from.

use std::fs::File;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;
use sotto_kubernetes::client::Source;

use super::Fault;
use super::section::{self, Section};
use crate::classes::ClassDirectory;

/// Where classes come from.
pub enum ClassesFrom {
    /// Manifests; no API server is contacted, for anything.
    Directory(ClassDirectory),
    /// The API server, which is told events and statuses, too.
    Cluster(Source),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    directory: Option<PathBuf>,
    cluster: Option<RawCluster>,
}

/// Says that the API server is meant, as an absent section does; it has no keys yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKubernetes {
    kubeconfig: Option<PathBuf>,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<ClassesFrom> {
    let raw = root.take("classes").unwrap_or_else(|| json!({}));
    let raw: Option<Raw> = section::read(raw, "classes", &[], faults);
    let kubernetes = root.take("kubernetes");
    let has_kubernetes = kubernetes.is_some();
    let kubernetes = kubernetes.unwrap_or_else(|| json!({}));
    let kubernetes: Option<RawKubernetes> = section::read(kubernetes, "kubernetes", &[], faults);
    match raw? {
        Raw { directory: Some(_), cluster: Some(_) } => {
            faults.push(Fault::new("classes", "write either directory, or cluster"));
            None
        }
        Raw { directory: Some(_), cluster: None } if has_kubernetes => {
            let message = "no API server is contacted with classes.directory: remove one of them";
            faults.push(Fault::new("kubernetes", message));
            None
        }
        Raw { directory: Some(directory), cluster: None } => in_directory(directory, faults),
        Raw { directory: None, cluster: _ } => in_cluster(kubernetes?, faults),
    }
}

fn in_directory(directory: PathBuf, faults: &mut Vec<Fault>) -> Option<ClassesFrom> {
    match std::fs::read_dir(&directory) {
        Ok(_) => Some(ClassesFrom::Directory(ClassDirectory::new(directory))),
        Err(error) => {
            let message = format!("{} can't be read: {error}", directory.display());
            faults.push(Fault::new("classes.directory", message));
            None
        }
    }
}

fn in_cluster(kubernetes: RawKubernetes, faults: &mut Vec<Fault>) -> Option<ClassesFrom> {
    let Some(path) = kubernetes.kubeconfig else {
        return Some(ClassesFrom::Cluster(Source::InCluster));
    };
    match File::open(&path) {
        Ok(_) => Some(ClassesFrom::Cluster(Source::Kubeconfig(path))),
        Err(error) => {
            let message = format!("{} can't be read: {error}", path.display());
            faults.push(Fault::new("kubernetes.kubeconfig", message));
            None
        }
    }
}
