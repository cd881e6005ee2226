//! `filePermission`: a YAML integer, octal as YAML 1.1 (`0600`) or 1.2 (`0o600`) writes it, or decimal
//! (384), as the present providers read it. Zero is as good as none.

use serde_json::Value;
use sotto_core::snapshot::FileMode;

/// Why a number can't be a file's permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermissionError {
    /// Not an integer: quoted, negative, or digits that aren't octal.
    #[error("is not an octal number: write it without quotes, e.g. 0440")]
    NotANumber,
    /// More than permission bits.
    #[error("has bits other than 0777 (decimal {0} is octal 0{0:o}): write it in octal, e.g. 0440")]
    NotPermission(u64),
}

pub(super) fn parse(value: &Value) -> Result<Option<FileMode>, PermissionError> {
    let bits = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64().ok_or(PermissionError::NotANumber)?,
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            return Err(PermissionError::NotANumber);
        }
    };
    if bits == 0 {
        return Ok(None);
    }
    let mode = u32::try_from(bits).ok().and_then(FileMode::new);
    mode.map(Some).ok_or(PermissionError::NotPermission(bits))
}
