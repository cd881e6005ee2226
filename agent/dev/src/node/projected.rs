//! A projected token as kubelet writes it: in a directory that is made whole and turned to by a rename, never
//! in place.

use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use crate::pki::write_file;
use crate::random;

/// The directory of a projected volume with one file.
pub(super) struct Projected {
    directory: PathBuf,
    name: String,
    owner: Option<u32>,
}

impl Projected {
    pub(super) fn new(directory: PathBuf, name: &str, owner: Option<u32>) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, name: name.to_owned(), owner })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Turns to this content.
    pub(super) fn write(&self, content: &str) -> io::Result<()> {
        let data = self.directory.join("..data");
        let old = fs::read_link(&data).ok();
        let new = format!("..{}", random::hex::<8>());
        let folder = self.directory.join(&new);
        fs::create_dir(&folder)?;
        let file = folder.join(&self.name);
        write_file(&file, content, 0o600)?;
        chown(&file, self.owner, self.owner)?;
        let link = self.directory.join("..data_tmp");
        symlink(&new, &link)?;
        fs::rename(&link, &data)?;
        match old {
            Some(old) => fs::remove_dir_all(self.directory.join(old)),
            None => symlink(format!("..data/{}", self.name), self.directory.join(&self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_by_a_rename_and_the_old_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let token = Projected::new(folder.path().join("token"), "token", None).unwrap();
        token.write("one").unwrap();
        let file = token.directory().join("token");
        let open = fs::File::open(&file).unwrap();
        token.write("two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(io::read_to_string(open).unwrap(), "one", "never in place");
        assert_eq!(fs::read_dir(token.directory()).unwrap().count(), 3, "token, ..data, ..<new>");
    }
}
