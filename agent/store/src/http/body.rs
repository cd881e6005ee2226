//! Bodies in wiped memory, bounded in size.

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use sotto_core::secret::SecretBytes;
use zeroize::Zeroizing;

use super::error::{self, HttpError};

struct Wiped(SecretBytes);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Bytes that hyper can send; wiped when the last reference to them is dropped.
#[must_use]
pub fn wiped(secret: SecretBytes) -> Bytes {
    Bytes::from_owner(Wiped(secret))
}

/// Reads a body to its end, or gives up at `limit`.
pub(super) async fn collect(mut body: Incoming, limit: usize) -> Result<SecretBytes, HttpError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(HttpError::TooLarge { limit });
    }
    let mut collected = Zeroizing::new(Vec::with_capacity(announced as usize));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error::of_body(&error))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if collected.len() + chunk.len() > limit {
            return Err(HttpError::TooLarge { limit });
        }
        append(&mut collected, &chunk);
    }
    Ok(SecretBytes::new(std::mem::take(&mut *collected)))
}

/// Appends without `realloc`, which would leave a copy behind unwiped.
fn append(collected: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = collected.len() + chunk.len();
    if needed > collected.capacity() {
        let capacity = needed.max(2 * collected.capacity());
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(collected);
        *collected = larger;
    }
    collected.extend_from_slice(chunk);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_keeps_everything_in_order() {
        let mut collected = Zeroizing::new(Vec::new());
        let whole: Vec<u8> = (0..=255).collect();
        whole.chunks(7).for_each(|chunk| append(&mut collected, chunk));
        assert_eq!(*collected, whole);
    }

    #[test]
    fn a_body_to_send_is_the_secret_itself() {
        let bytes = wiped(SecretBytes::new(b"s3cret".to_vec()));
        assert_eq!(bytes.clone().as_ref(), b"s3cret");
    }
}
