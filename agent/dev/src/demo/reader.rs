//! What a container's process sees: a process of its own, of another user, that walks a volume and reads it.

use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::process::{Program, Running, Stream};

/// A few files.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// What was seen, as one JSON line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The reader's uid.
    pub(super) uid: u32,
    /// The reader's gid.
    pub(super) gid: u32,
    /// Everything in the volume, by path.
    pub(super) entries: Vec<Entry>,
    /// What the files hold that were asked for, read by their names.
    pub(super) files: Vec<File>,
    /// What an attempt to write a file was answered.
    pub(super) write: String,
}

/// A file, directory or link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Relative to the volume.
    pub(super) path: String,
    /// `file`, `directory` or `link`.
    pub(super) kind: String,
    /// Permissions, octal.
    pub(super) mode: String,
    /// The owner.
    pub(super) uid: u32,
    /// The group.
    pub(super) gid: u32,
    /// Bytes.
    pub(super) size: u64,
    /// Where a link leads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) target: Option<String>,
}

/// A file's content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct File {
    /// Its name, as the class has it.
    pub(super) name: String,
    /// What it holds, or why it can't be read.
    pub(super) content: String,
}

/// Runs `executable read directory name...` as a user, and returns what it saw.
pub(super) async fn read_as(
    user: Option<(u32, u32)>,
    executable: &Path,
    directory: &Path,
    names: impl Iterator<Item = &str>,
) -> anyhow::Result<Seen> {
    let arguments = ["read".to_owned(), directory.display().to_string()];
    let reader = Program::new("the reader", executable).arguments(arguments).arguments(names);
    let reader = reader.user(user);
    let reader = Running::start(reader).await?;
    reader.line("what it saw", READ_DEADLINE, |line| line.starts_with('{')).await?;
    reader.wait(READ_DEADLINE).await?;
    let lines = reader.log().lines(Stream::Output);
    serde_json::from_str(&lines.concat()).context("the reader's words can't be read")
}

/// The subcommand `read`: writes what is seen in `directory`, and what the files `names` in it hold, to
/// standard output.
///
/// # Errors
/// The directory can't be read.
pub fn print(directory: &Path, names: &[String]) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    walk(directory, "", &mut entries)
        .with_context(|| format!("{} can't be read", directory.display()))?;
    let file = |name: &String| File { name: name.clone(), content: content(&directory.join(name)) };
    let files = names.iter().map(file).collect();
    let write = match fs::write(directory.join("a-file-of-mine"), "x") {
        Ok(()) => "written".to_owned(),
        Err(error) => error.to_string(),
    };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let seen = serde_json::to_string(&Seen { uid, gid, entries, files, write })?;
    writeln!(io::stdout(), "{seen}")?;
    Ok(())
}

fn walk(root: &Path, below: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(root.join(below))?.collect::<Result<_, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for name in names {
        let path = match below {
            "" => name.file_name().to_string_lossy().into_owned(),
            below => format!("{below}/{}", name.file_name().to_string_lossy()),
        };
        let metadata = fs::symlink_metadata(root.join(&path))?;
        let is_directory = metadata.is_dir();
        entries.push(entry(root, &path, &metadata));
        if is_directory {
            walk(root, &path, entries)?;
        }
    }
    Ok(())
}

fn entry(root: &Path, path: &str, metadata: &Metadata) -> Entry {
    let at = root.join(path);
    let kind = if metadata.is_symlink() {
        "link"
    } else if metadata.is_dir() {
        "directory"
    } else {
        "file"
    };
    Entry {
        path: path.to_owned(),
        kind: kind.to_owned(),
        mode: format!("{:04o}", metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        target: fs::read_link(&at).ok().map(|target| target.display().to_string()),
    }
}

fn content(at: &Path) -> String {
    match fs::read(at) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("({error})"),
    }
}
