//! SecretProviderClasses from a directory of YAML manifests, as they would be applied to a cluster.
//!
//! Invariant: a look-up shows the files as they are now: they are read again when one of them was added,
//! changed or removed. A manifest that can't be read hides no other one, and is never taken for absent.

mod manifest;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sotto_core::class::SecretProviderClass;
use sotto_core::identity::{ClassName, Namespace};
use sotto_volume::classes::{ClassError, ClassSource, LookUp};
use tokio::sync::Mutex;

/// Most manifests of a directory.
const MOST_FILES: usize = 2_000;
/// Largest manifest, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One thing wrong in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFault {
    /// The file's name.
    pub file: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.message)
    }
}

/// A directory of manifests.
pub struct ClassDirectory {
    directory: PathBuf,
    last: Mutex<Option<Look>>,
}

/// One look at the files.
struct Look {
    began: Instant,
    known: Arc<Known>,
}

type Key = (Namespace, ClassName);

/// What the files held when they were read.
#[derive(Default)]
struct Known {
    stamps: BTreeMap<PathBuf, Stamp>,
    classes: BTreeMap<Key, Class>,
    faults: Vec<ManifestFault>,
}

struct Class {
    file: String,
    class: Result<Arc<SecretProviderClass>, String>,
}

/// Changes whenever a file's content may have. The inode's own change time can't be set by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl ClassDirectory {
    /// Reads `directory` at the first look-up.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, last: Mutex::new(None) }
    }

    /// Reads the directory. Returns how many classes can be used, and what is wrong.
    ///
    /// # Errors
    /// The directory itself can't be read.
    pub async fn check(&self) -> Result<(usize, Vec<ManifestFault>), ClassError> {
        let known = self.current().await?;
        let usable = known.classes.values().filter(|class| class.class.is_ok()).count();
        Ok((usable, known.faults.clone()))
    }

    async fn current(&self) -> Result<Arc<Known>, ClassError> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // One look does for all who asked before it began: volumes come several at a time.
        if let Some(look) = last.as_ref().filter(|look| look.began > asked) {
            return Ok(Arc::clone(&look.known));
        }
        let before = last.as_ref().map(|look| Arc::clone(&look.known));
        let directory = self.directory.clone();
        let read = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            read_if_changed(&directory, before).map(|known| Look { began, known })
        });
        let unavailable = |reason: String| ClassError::Unavailable {
            reason: format!("{}: {reason}", self.directory.display()),
        };
        let look = match read.await {
            Ok(Ok(look)) => look,
            Ok(Err(error)) => return Err(unavailable(error.to_string())),
            Err(error) => return Err(unavailable(error.to_string())),
        };
        let current = Arc::clone(&look.known);
        if last.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.known, &current)) {
            for fault in &current.faults {
                tracing::warn!(%fault, "a manifest can't be used");
            }
            tracing::info!(classes = current.classes.len(), "SecretProviderClasses were read");
        }
        *last = Some(look);
        Ok(current)
    }

    async fn look_up(
        &self,
        namespace: &Namespace,
        name: &ClassName,
    ) -> Result<Arc<SecretProviderClass>, ClassError> {
        let known = self.current().await?;
        match known.classes.get(&(namespace.clone(), name.clone())) {
            Some(Class { class: Ok(class), .. }) => Ok(Arc::clone(class)),
            Some(Class { class: Err(reason), .. }) => Err(ClassError::Unusable {
                namespace: namespace.clone(),
                name: name.clone(),
                reason: reason.clone(),
            }),
            None => match known.faults.first() {
                // It may well be in the file that can't be read.
                Some(fault) => Err(ClassError::Unavailable { reason: fault.to_string() }),
                None => {
                    Err(ClassError::Unknown { namespace: namespace.clone(), name: name.clone() })
                }
            },
        }
    }
}

impl ClassSource for ClassDirectory {
    fn class<'a>(&'a self, namespace: &'a Namespace, name: &'a ClassName) -> LookUp<'a> {
        Box::pin(self.look_up(namespace, name))
    }
}

fn read_if_changed(directory: &Path, before: Option<Arc<Known>>) -> io::Result<Arc<Known>> {
    let stamps = stamps(directory)?;
    match before {
        Some(before) if before.stamps == stamps => Ok(before),
        _ => Ok(Arc::new(read_all(stamps))),
    }
}

fn stamps(directory: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut stamps = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !is_manifest(&path) {
            continue;
        }
        // Through links: a ConfigMap's files are links into a directory that is replaced as a whole.
        let Ok(found) = fs::metadata(&path) else { continue };
        if stamps.len() == MOST_FILES {
            return Err(io::Error::other(format!("more than {MOST_FILES} manifests")));
        }
        let stamp = Stamp {
            inode: (found.dev(), found.ino()),
            bytes: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        stamps.insert(path, stamp);
    }
    Ok(stamps)
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
    let extension = path.extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml"))
}

fn read_all(stamps: BTreeMap<PathBuf, Stamp>) -> Known {
    let mut known = Known::default();
    for path in stamps.keys() {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifests = match read_file(path).map_err(|error| error.to_string()) {
            Ok(text) => manifest::read(&text),
            Err(error) => vec![Err(error)],
        };
        for manifest in manifests {
            known.add(&file, manifest);
        }
    }
    known.stamps = stamps;
    known
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

impl Known {
    fn add(&mut self, file: &str, manifest: Result<manifest::Manifest, String>) {
        let manifest::Manifest { namespace, name, class } = match manifest {
            Ok(manifest) => manifest,
            Err(message) => return self.fault(file, message),
        };
        if let Err(reason) = &class {
            self.fault(file, format!("SecretProviderClass {namespace}/{name}: {reason}"));
        }
        let key = (namespace, name);
        if let Some(first) = self.classes.get_mut(&key) {
            // Which of them its author means nobody can say.
            let reason = format!("it is defined twice, in {} and in {file}", first.file);
            first.class = Err(reason.clone());
            self.fault(file, format!("SecretProviderClass {}/{}: {reason}", key.0, key.1));
            return;
        }
        let class = class.map(Arc::new);
        self.classes.insert(key, Class { file: file.to_owned(), class });
    }

    fn fault(&mut self, file: &str, message: String) {
        self.faults.push(ManifestFault { file: file.to_owned(), message });
    }
}

#[cfg(test)]
mod tests;
