//! The names of files inside a volume.
//!
//! Invariant: an [`ObjectPath`] is a clean relative path that no kernel, kubelet or container runtime
//! reads in another way, and that can't collide with the volume's own `..data` layout. Stores never
//! choose a name; only the SecretProviderClass does, and it passes through here.

use std::fmt;

/// Longest component that Linux accepts (NAME_MAX), in bytes.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Longest path that the provider contract accepts (PATH_MAX), in bytes.
pub const MAX_PATH_BYTES: usize = 4096;
/// Deepest nesting of an object's name, in components.
pub const MAX_DEPTH: usize = 16;

/// The path of one object's file, relative to the volume's root, e.g. `tls/server.key`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(String);

/// Why a name can't be a file in a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectPathError {
    /// The name is the empty string.
    #[error("the name is empty: give the file a name")]
    Empty,
    /// The name begins with `/`.
    #[error("the name is absolute: write it relative to the volume's root")]
    Absolute,
    /// A `//`, or a `/` at the end.
    #[error("the name has an empty component: write single slashes, and none at the end")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("the name has a \".\" or \"..\" component: write the path without it")]
    Dots,
    /// The first component begins with `..`, which the volume's own layout uses.
    #[error("the name begins with \"..\": such names are reserved for the volume's own layout")]
    Reserved,
    /// A byte that isn't printable ASCII.
    #[error(
        "the name has a byte that isn't printable ASCII at offset {0}: use letters, digits, and marks such as . - _"
    )]
    NotPrintableAscii(usize),
    /// A component over [`MAX_COMPONENT_BYTES`].
    #[error("a component of the name has {0} bytes: at most {MAX_COMPONENT_BYTES}")]
    ComponentTooLong(usize),
    /// The whole over [`MAX_PATH_BYTES`].
    #[error("the name has {0} bytes: at most {MAX_PATH_BYTES}")]
    TooLong(usize),
    /// More than [`MAX_DEPTH`] components.
    #[error("the name has {0} components: at most {MAX_DEPTH}")]
    TooDeep(usize),
}

impl ObjectPath {
    /// Parses a name as its author wrote it.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self, ObjectPathError> {
        if name.is_empty() {
            return Err(ObjectPathError::Empty);
        }
        if name.len() > MAX_PATH_BYTES {
            return Err(ObjectPathError::TooLong(name.len()));
        }
        if let Some(offset) = name.bytes().position(|byte| !(0x20..=0x7e).contains(&byte)) {
            return Err(ObjectPathError::NotPrintableAscii(offset));
        }
        if name.starts_with('/') {
            return Err(ObjectPathError::Absolute);
        }
        let depth = name.split('/').count();
        if depth > MAX_DEPTH {
            return Err(ObjectPathError::TooDeep(depth));
        }
        name.split('/').try_for_each(check_component)?;
        if name.starts_with("..") {
            return Err(ObjectPathError::Reserved);
        }
        Ok(Self(name.to_owned()))
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, outermost first; never empty.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

fn check_component(component: &str) -> Result<(), ObjectPathError> {
    match component {
        "" => Err(ObjectPathError::EmptyComponent),
        "." | ".." => Err(ObjectPathError::Dots),
        long if long.len() > MAX_COMPONENT_BYTES => {
            Err(ObjectPathError::ComponentTooLong(long.len()))
        }
        _ => Ok(()),
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_leave_or_confuse_the_volume_are_refused() {
        use ObjectPathError::*;
        let long = "x".repeat(256);
        let huge = "x/".repeat(2048) + "x";
        let deep = "d/".repeat(16) + "f";
        for (name, error) in [
            ("", Empty),
            ("/etc/passwd", Absolute),
            ("../x", Dots),
            ("a/../b", Dots),
            ("./a", Dots),
            ("a//b", EmptyComponent),
            ("a/", EmptyComponent),
            ("..data", Reserved),
            ("..data/x", Reserved),
            ("..sotto/status.json", Reserved),
            ("a\0b", NotPrintableAscii(1)),
            ("a\nb", NotPrintableAscii(1)),
            ("pässword", NotPrintableAscii(1)),
            (long.as_str(), ComponentTooLong(256)),
            (huge.as_str(), TooLong(4097)),
            (deep.as_str(), TooDeep(17)),
        ] {
            assert_eq!(ObjectPath::parse(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn ordinary_and_nested_names_are_accepted() {
        for name in
            ["db-password", "tls/server.key", "a b", ".hidden", "x..y", "d/..z", &"x".repeat(255)]
        {
            assert_eq!(ObjectPath::parse(name).unwrap().as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_never_escapes(name in "[ -~\\x00-\\x1fé/.]{0,40}") {
            if let Ok(path) = ObjectPath::parse(&name) {
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert!(path.components().all(|c| !c.is_empty() && c != "." && c != ".."));
            }
        }
    }
}
