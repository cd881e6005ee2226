//! The hand-written Rust files of the workspace.

use std::fmt;
use std::path::{Path, PathBuf};

/// One file; its text is left out of messages.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) lines: usize,
    pub(crate) text: String,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} lines)", self.path, self.lines)
    }
}

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn hand_written() -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    for folder in ["agent", "csi-driver", "proto", "tests"] {
        collect(&root, &root.join(folder), &mut files);
    }
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<Source>) {
    let entries = std::fs::read_dir(folder).expect("a source folder can be read");
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    for path in paths {
        let generated = path.file_name().is_some_and(|name| name == "gen" || name == "target");
        if path.is_dir() && !generated {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let path =
                path.strip_prefix(root).expect("a file beneath the root").display().to_string();
            files.push(Source { path, lines: text.lines().count(), text });
        }
    }
}

pub(crate) fn has_unsafe(text: &str) -> bool {
    let openers = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].map(str::to_owned);
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//") && !line.contains("has_unsafe(\""))
        .any(|line| openers.iter().any(|opener| line.contains(opener.as_str())))
}
