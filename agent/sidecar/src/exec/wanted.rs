//! Which value a variable gets.

use std::path::{Component, PathBuf};

/// `NAME=file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The variable.
    pub name: String,
    /// The file, beneath the volume.
    pub file: PathBuf,
}

impl Wanted {
    /// Parses it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, file) = text.split_once('=').ok_or("write it as NAME=file")?;
        if !is_variable(name) {
            return Err("the name has letters, digits and _ only, and begins with no digit".into());
        }
        let file = PathBuf::from(file);
        let is_plain = |part: Component<'_>| match part {
            Component::Normal(name) => !name.as_encoded_bytes().starts_with(b".."),
            _ => false,
        };
        if file.components().next().is_none() || !file.components().all(is_plain) {
            return Err("the file is a path beneath the volume, e.g. db-password".to_owned());
        }
        Ok(Self { name: name.to_owned(), file })
    }
}

/// Whether every shell can name it (POSIX, 8.1).
pub(super) fn is_variable(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_word) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beneath_the_volume_becomes_a_variable() {
        let wanted = Wanted::parse("DB_PASSWORD=db/pass.word").unwrap();
        assert_eq!((wanted.name.as_str(), wanted.file), ("DB_PASSWORD", "db/pass.word".into()));
        for bad in [
            "",
            "A",
            "=a",
            "1A=a",
            "A-B=a",
            "A B=a",
            "A=",
            "A=/etc/x",
            "A=../x",
            "A=a/../b",
            "A=..data/x",
        ] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }
}
