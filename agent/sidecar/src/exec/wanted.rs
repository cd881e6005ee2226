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

/// Variables that the loader, shells and runtimes act upon: whoever may write a secret could run code by one.
const ACTED_UPON: &[&str] = &[
    "PATH",
    "HOME",
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "NODE_OPTIONS",
    "RUBYOPT",
    "RUBYLIB",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "CLASSPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const ACTED_UPON_PREFIXES: &[&str] =
    &["LD_", "PYTHON", "PERL5", "DOTNET_", "COMPLUS_", "MALLOC_", "GIT_"];
const ACTED_UPON_SUFFIX: &str = "_PROXY";

/// Whether a file's name alone must not make it a variable: only who writes the command may choose that.
pub(super) fn needs_naming(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    ACTED_UPON.contains(&upper.as_str())
        || ACTED_UPON_PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
        || upper.ends_with(ACTED_UPON_SUFFIX)
        || std::env::var_os(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_programs_act_upon_are_not_taken_by_themselves() {
        for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "NODE_OPTIONS", "https_proxy", "PYTHONPATH"]
        {
            assert!(needs_naming(name), "{name}");
        }
        for name in ["PASSWORD", "DB_USER", "path_of_key"] {
            assert!(!needs_naming(name), "{name}");
        }
        assert!(needs_naming("CARGO_PKG_NAME"), "it is in the environment already");
    }

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
