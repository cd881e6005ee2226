//! What can go wrong in the tree; the dispatcher has the table of errnos.

use sotto_core::snapshot::Generation;

/// Why an operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The inode belongs to a generation that is gone; its path may lead to a newer one.
    #[error("the file's generation is gone")]
    Stale,
    /// The parent is no directory.
    #[error("not a directory")]
    NotDirectory,
    /// A file was expected.
    #[error("is a directory")]
    IsDirectory,
    /// Not a symbolic link.
    #[error("not a symbolic link")]
    NotLink,
    /// A name over 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// The store refuses the object, or its value is too old.
    #[error("the object is refused")]
    Denied,
    /// A write that is no announced part of a rotation.
    #[error("the volume is read-only")]
    ReadOnly,
}

/// Why a generation can't be staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// Numbers only grow.
    #[error("generation {} isn't newer than the current one", .0.get())]
    NotNewer(Generation),
    /// The kernel already has the link of another staged generation: it must be committed first.
    #[error("the rotation to generation {} is half done: complete it first", .0.get())]
    Unfinished(Generation),
}
