//! `sotto-node check`: everything that a start would read, and more patience with the reader.

use std::path::Path;

use crate::config::{Config, Fault, Faults, Mode};

/// What a usable configuration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Stores.
    pub stores: usize,
    /// Keys that can verify a token.
    pub keys: usize,
    /// Classes that can be used.
    pub classes: usize,
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
    let at = "classes.directory".to_owned();
    let classes = match config.classes.check().await {
        Ok((classes, found)) => {
            let fault = |found: crate::classes::ManifestFault| Fault {
                path: at.clone(),
                message: found.to_string(),
            };
            faults.extend(found.into_iter().map(fault));
            classes
        }
        Err(error) => {
            faults.push(Fault { path: at, message: error.to_string() });
            0
        }
    };
    let stores = config.stores.settings().count();
    if faults.is_empty() { Ok(Summary { stores, keys, classes }) } else { Err(Faults(faults)) }
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
