//! The ways in which a provider answers, right and wrong.

use std::io;
use std::path::Path;

use sotto_proto::provider::v1alpha1::{Error, File, MountRequest, MountResponse, ObjectVersion};
use tonic::{Code, Status};

/// A file that a provider returns, with the version that it says it has.
#[derive(Clone)]
pub struct ProviderFile {
    /// Relative to the volume's root, if it is right.
    pub path: String,
    /// Permission bits, if they are right.
    pub mode: i32,
    /// The secret.
    pub content: Vec<u8>,
    /// Its `ObjectVersion`, with the path as id; `None`: an entry under another id.
    pub version: Option<String>,
}

impl ProviderFile {
    /// A file with mode 0644.
    #[must_use]
    pub fn new(path: &str, content: &str, version: &str) -> Self {
        let (path, content) = (path.to_owned(), content.as_bytes().to_vec());
        Self { path, mode: 0o644, content, version: Some(version.to_owned()) }
    }

    fn object_version(&self) -> ObjectVersion {
        match &self.version {
            Some(version) => ObjectVersion { id: self.path.clone(), version: version.clone() },
            None => ObjectVersion { id: format!("id-of/{}", self.path), version: "1".to_owned() },
        }
    }
}

/// How a provider behaves.
#[derive(Clone)]
pub enum Behaviour {
    /// Returns these files, with an `ObjectVersion` for each.
    Files(Vec<ProviderFile>),
    /// Returns these files and no version.
    WithoutVersions(Vec<ProviderFile>),
    /// Says that it has written the files.
    WithoutFiles,
    /// Writes the files itself, as providers did before they returned them.
    Writes(Vec<ProviderFile>),
    /// Returns the files, but reads what the caller has already in its version from the target path, as the
    /// provider of AWS does.
    ReadsWhatIsCurrent(Vec<ProviderFile>),
    /// Returns `error.code`, and files besides.
    ErrorCode(String),
    /// Returns one file of this many bytes.
    Large(usize),
    /// Answers with this status.
    Refuses(Code, String),
    /// Answers with a status that repeats all that it was sent.
    Repeats(Code),
    /// Never answers.
    Hangs,
    /// Cuts the connection when the request is there.
    ClosesConnection,
    /// Speaks another protocol.
    SpeaksHttp1,
}

impl Behaviour {
    /// The answer; `None` if there is none to be.
    pub(super) fn answer(self, request: &MountRequest) -> Option<Result<MountResponse, Status>> {
        let answer = match self {
            Self::Files(files) => Ok(returned(files)),
            Self::WithoutVersions(files) => {
                Ok(MountResponse { object_version: Vec::new(), ..returned(files) })
            }
            Self::WithoutFiles => {
                let files = vec![ProviderFile::new("a", "", "1")];
                Ok(MountResponse { files: Vec::new(), ..returned(files) })
            }
            Self::Writes(files) => write(&request.target_path, &files)
                .map(|()| MountResponse { files: Vec::new(), ..returned(files) }),
            Self::ReadsWhatIsCurrent(files) => read_current(request, &files).map(returned),
            Self::ErrorCode(code) => {
                let files = vec![ProviderFile::new("a", "", "1")];
                Ok(MountResponse { error: Some(Error { code }), ..returned(files) })
            }
            Self::Large(bytes) => {
                Ok(returned(vec![ProviderFile::new("large", &"x".repeat(bytes), "1")]))
            }
            Self::Refuses(code, message) => Err(Status::new(code, message)),
            Self::Repeats(code) => {
                let said = format!("can't: {} {}", request.attributes, request.secrets);
                Err(Status::new(code, said))
            }
            Self::Hangs | Self::ClosesConnection | Self::SpeaksHttp1 => return None,
        };
        Some(answer)
    }
}

fn returned(files: Vec<ProviderFile>) -> MountResponse {
    let object_version = files.iter().map(ProviderFile::object_version).collect();
    let file =
        |file: ProviderFile| File { path: file.path, mode: file.mode, contents: file.content };
    MountResponse { object_version, error: None, files: files.into_iter().map(file).collect() }
}

fn write(target: &str, files: &[ProviderFile]) -> Result<(), Status> {
    files.iter().try_for_each(|file| {
        let path = Path::new(target).join(&file.path);
        std::fs::write(&path, &file.content).map_err(|error| failed(&path, &error))
    })
}

fn read_current(
    request: &MountRequest,
    files: &[ProviderFile],
) -> Result<Vec<ProviderFile>, Status> {
    let current =
        |file: &ProviderFile| request.current_object_version.contains(&file.object_version());
    let read = |file: &ProviderFile| {
        if !current(file) {
            return Ok(file.clone());
        }
        let path = Path::new(&request.target_path).join(&file.path);
        let content = std::fs::read(&path).map_err(|error| failed(&path, &error))?;
        Ok(ProviderFile { content, ..file.clone() })
    };
    files.iter().map(read).collect()
}

/// As a provider in Go says it: an error without a status is of code Unknown.
fn failed(path: &Path, error: &io::Error) -> Status {
    Status::unknown(format!("open {}: {error}", path.display()))
}
