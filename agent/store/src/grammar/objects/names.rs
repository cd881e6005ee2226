//! Whether the files of a volume can stand beside each other; found before anything is read, so that no
//! credential is issued for a volume that can't be.

use std::collections::BTreeMap;

use sotto_core::names::ObjectPath;

use crate::grammar::error::ObjectFault;

/// The names so far, each with the first object that made it.
#[derive(Default)]
pub(super) struct Names {
    files: BTreeMap<String, usize>,
    directories: BTreeMap<String, usize>,
}

impl Names {
    pub(super) fn add(&mut self, index: usize, path: &ObjectPath) -> Result<(), ObjectFault> {
        let file = path.as_str();
        if let Some(first) = self.files.get(file) {
            return Err(ObjectFault::Duplicate { first: *first });
        }
        let conflict = |conflict: &str, other: usize| {
            Err(ObjectFault::FileIsDirectory { conflict: conflict.to_owned(), other })
        };
        if let Some(other) = self.directories.get(file) {
            return conflict(file, *other);
        }
        let slashes = file.match_indices('/').map(|(at, _)| &file[..at]);
        if let Some((directory, other)) =
            slashes.clone().find_map(|at| self.files.get(at).map(|other| (at, *other)))
        {
            return conflict(directory, other);
        }
        for directory in slashes {
            self.directories.entry(directory.to_owned()).or_insert(index);
        }
        self.files.insert(file.to_owned(), index);
        Ok(())
    }
}
