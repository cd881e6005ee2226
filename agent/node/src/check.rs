//! `sotto-node check`: everything that a start would read, and more patience with the reader.

use std::path::Path;

use sotto_kubernetes::client::{Cluster, Source};

use crate::classes::ClassDirectory;
use crate::config::{ClassesFrom, Config, Fault, Faults, Mode};

/// What a usable configuration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Stores.
    pub stores: usize,
    /// Keys that can verify a token.
    pub keys: usize,
    /// Classes that can be used; nothing if they come from the API server, which isn't asked.
    pub classes: Option<usize>,
}

/// Reads the configuration and all that it names.
///
/// # Errors
/// All faults at once, those of manifests too.
pub fn check(file: &Path, mode: Mode) -> Result<Summary, Faults> {
    let config = Config::load(file, mode)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| whole(&error.to_string()))?;
    runtime.block_on(check_sources(&config))
}

async fn check_sources(config: &Config) -> Result<Summary, Faults> {
    let mut faults = Vec::new();
    let keys = config.tokens.keys.check().await.unwrap_or_else(|error| {
        faults.push(Fault { path: "tokens.jwks".to_owned(), message: error.to_string() });
        0
    });
    let classes = match &config.classes {
        ClassesFrom::Directory(directory) => Some(check_directory(directory, &mut faults).await),
        ClassesFrom::Cluster(source) => {
            check_cluster(source, &mut faults).await;
            None
        }
    };
    let stores = config.stores.names().count();
    if faults.is_empty() { Ok(Summary { stores, keys, classes }) } else { Err(Faults(faults)) }
}

async fn check_directory(directory: &ClassDirectory, faults: &mut Vec<Fault>) -> usize {
    let at = |message: String| Fault { path: "classes.directory".to_owned(), message };
    match directory.check().await {
        Ok((classes, found)) => {
            faults.extend(found.into_iter().map(|found| at(found.to_string())));
            classes
        }
        Err(error) => {
            faults.push(at(error.to_string()));
            0
        }
    }
}

/// Sends nothing. What a pod has of its cluster can't be looked at from elsewhere.
async fn check_cluster(source: &Source, faults: &mut Vec<Fault>) {
    match source {
        Source::InCluster => {}
        Source::Kubeconfig(_) => {
            if let Err(error) = Cluster::connect(source).await {
                let path = "kubernetes.kubeconfig".to_owned();
                faults.push(Fault { path, message: error.to_string() });
            }
        }
    }
}

fn whole(message: &str) -> Faults {
    Faults(vec![Fault { path: String::new(), message: message.to_owned() }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_the_only_fault() {
        let faults = check(Path::new("/nowhere/config.yaml"), Mode::Production).unwrap_err();
        assert_eq!(faults.0.len(), 1);
        assert_eq!(faults.0[0].path, "/nowhere/config.yaml");
    }
}
