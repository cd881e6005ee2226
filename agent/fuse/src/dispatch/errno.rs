//! The one table from what went wrong to what the caller sees.

use fuser::Errno;

use crate::tree::TreeError;

pub(super) fn errno(error: TreeError) -> Errno {
    match error {
        TreeError::NotFound => Errno::ENOENT,
        // The kernel looks the path up again, and finds the newer generation.
        TreeError::Stale => Errno::ESTALE,
        TreeError::NotDirectory => Errno::ENOTDIR,
        TreeError::IsDirectory => Errno::EISDIR,
        TreeError::NotLink => Errno::EINVAL,
        TreeError::NameTooLong => Errno::ENAMETOOLONG,
        TreeError::Denied => Errno::EACCES,
        TreeError::ReadOnly => Errno::EROFS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_and_a_write_are_told_apart() {
        assert_eq!(errno(TreeError::Denied), Errno::EACCES);
        assert_eq!(errno(TreeError::ReadOnly), Errno::EROFS);
        assert_eq!(errno(TreeError::NotFound), Errno::ENOENT);
    }
}
