//! `classes`: where SecretProviderClasses come from.

use std::path::PathBuf;

use serde::Deserialize;

use super::Fault;
use super::section::{self, Section};
use crate::classes::ClassDirectory;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    directory: PathBuf,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<ClassDirectory> {
    let Some(raw) = root.take("classes") else {
        let message = "missing: name a directory of SecretProviderClass manifests";
        faults.push(Fault::new("classes", message));
        return None;
    };
    let raw: Raw = section::read(raw, "classes", &["directory"], faults)?;
    match std::fs::read_dir(&raw.directory) {
        Ok(_) => Some(ClassDirectory::new(raw.directory)),
        Err(error) => {
            let message = format!("{} can't be read: {error}", raw.directory.display());
            faults.push(Fault::new("classes.directory", message));
            None
        }
    }
}
