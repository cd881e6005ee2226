//! An answer's files: checked, and given versions.
//!
//! Invariant: no file leaves the volume, none is over a limit, no two have one name; one that is wrong fails
//! the whole answer. A file whose content changed never keeps its version, whatever the provider says.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use sotto_core::identity::StoreName;
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{FileMode, Object};
use sotto_proto::provider::v1alpha1::{File, MountResponse, ObjectVersion};

use super::error::{Asker, FileFault, ProviderError};
use crate::text;

/// Longest version that is taken over; a longer one is told by a digest of the content.
const MAX_VERSION_BYTES: usize = 256;

/// One file of an answer, before any check.
struct Received {
    path: String,
    mode: i32,
    content: SecretBytes,
}

impl From<File> for Received {
    fn from(file: File) -> Self {
        Self { path: file.path, mode: file.mode, content: SecretBytes::new(file.contents) }
    }
}

/// The files of an answer, and what its provider said of their versions.
pub(super) struct Answer {
    pub(super) versions: Vec<ObjectVersion>,
    files: Vec<(ObjectPath, Option<FileMode>, SecretBytes)>,
}

/// Checks an answer whole.
pub(super) fn check(
    answer: MountResponse,
    asker: &Asker<'_>,
    limits: &Limits,
) -> Result<Answer, ProviderError> {
    // First of all, so that every content is wiped, whatever comes of it.
    let received: Vec<Received> = answer.files.into_iter().map(Into::into).collect();
    let provider = || asker.provider.clone();
    if let Some(error) = answer.error.filter(|error| !error.code.is_empty()) {
        return Err(asker.failed_with(&error.code));
    }
    if answer.object_version.is_empty() {
        return Err(ProviderError::NoVersions { provider: provider() });
    }
    if received.is_empty() {
        return Err(ProviderError::WritesFilesItself { provider: provider() });
    }
    if received.len() > limits.objects {
        let (count, limit) = (received.len(), limits.objects);
        return Err(ProviderError::TooManyFiles { provider: provider(), count, limit });
    }
    if received.iter().map(|file| file.content.len()).sum::<usize>() > limits.volume_bytes {
        let limit = limits.volume_bytes;
        return Err(ProviderError::VolumeTooLarge { provider: provider(), limit });
    }
    let files = check_files(received, asker.provider, limits)?;
    Ok(Answer { versions: answer.object_version, files })
}

fn check_files(
    received: Vec<Received>,
    provider: &StoreName,
    limits: &Limits,
) -> Result<Vec<(ObjectPath, Option<FileMode>, SecretBytes)>, ProviderError> {
    let mut names = BTreeMap::new();
    let mut files = Vec::with_capacity(received.len());
    for (index, file) in received.into_iter().enumerate() {
        let (path, mode) = check_file(&file, limits)
            .and_then(|(path, mode)| match names.insert(path.clone(), index) {
                Some(first) => Err(FileFault::Duplicate { first }),
                None => Ok((path, mode)),
            })
            .map_err(|fault| {
                let (provider, name) = (provider.clone(), label(&file.path));
                ProviderError::File { provider, index, name, fault }
            })?;
        files.push((path, mode, file.content));
    }
    Ok(files)
}

fn check_file(
    file: &Received,
    limits: &Limits,
) -> Result<(ObjectPath, Option<FileMode>), FileFault> {
    let path = ObjectPath::parse(&file.path)?;
    let mode = match u32::try_from(file.mode) {
        Ok(0) => None,
        Ok(bits) => Some(FileMode::new(bits).ok_or(FileFault::Mode(file.mode))?),
        Err(_negative) => return Err(FileFault::Mode(file.mode)),
    };
    let (bytes, limit) = (file.content.len(), limits.object_bytes);
    if bytes > limit { Err(FileFault::TooLarge { bytes, limit }) } else { Ok((path, mode)) }
}

/// A file's name for a message.
fn label(name: &str) -> String {
    if name.len() <= 80 && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        name.to_owned()
    } else {
        format!("{:?}", text::excerpt(name))
    }
}

/// What the last answer held: nothing of a content but a keyed digest.
#[derive(Default)]
pub(super) struct Known {
    /// As the provider said, to be told to it with the next request.
    pub(super) versions: Vec<ObjectVersion>,
    files: BTreeMap<ObjectPath, KnownFile>,
}

#[derive(Clone)]
struct KnownFile {
    said: Option<String>,
    digest: String,
    /// The provider kept a version for another content once: its word alone isn't enough from then on.
    is_untrue: bool,
}

impl Known {
    /// Takes over an answer; each file with its version.
    pub(super) fn objects(&mut self, answer: Answer, key: &hmac::Key) -> Vec<Object> {
        let said: BTreeMap<&str, &str> =
            answer.versions.iter().map(|one| (one.id.as_str(), one.version.as_str())).collect();
        let mut files = BTreeMap::new();
        let mut objects = Vec::with_capacity(answer.files.len());
        for (path, mode, value) in answer.files {
            let said = said.get(path.as_str()).copied().filter(|version| is_plain(version));
            let file = KnownFile::new(said, digest(&path, &value, key), self.files.get(&path));
            let version = file.version();
            files.insert(path.clone(), file);
            objects.push(Object { path, mode, version, value });
        }
        self.files = files;
        self.versions = answer.versions;
        objects
    }
}

impl KnownFile {
    fn new(said: Option<&str>, digest: String, before: Option<&Self>) -> Self {
        let said = said.map(str::to_owned);
        let is_untrue = before.is_some_and(|before| {
            before.is_untrue || (before.said == said && before.digest != digest)
        });
        Self { said, digest, is_untrue }
    }

    fn version(&self) -> String {
        match &self.said {
            None => self.digest.clone(),
            Some(said) if self.is_untrue => format!("{said}@{}", self.digest),
            Some(said) => said.clone(),
        }
    }
}

fn is_plain(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= MAX_VERSION_BYTES
        && version.bytes().all(|byte| byte.is_ascii_graphic())
}

fn digest(path: &ObjectPath, value: &SecretBytes, key: &hmac::Key) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(&(path.as_str().len() as u64).to_be_bytes());
    context.update(path.as_str().as_bytes());
    context.update(value.expose());
    context.sign().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
