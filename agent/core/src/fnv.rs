//! FNV-1a: the same hash in every process and every build, unlike the standard library's. Nothing may depend on its strength.

/// The 64-bit hash of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fnv1a(u64);

impl Fnv1a {
    /// Of no bytes.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);
    const PRIME: u64 = 0x0100_0000_01b3;

    /// Of these after those before.
    #[must_use]
    pub fn with(self, bytes: impl IntoIterator<Item = u8>) -> Self {
        let fold = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(Self::PRIME);
        Self(bytes.into_iter().fold(self.0, fold))
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// The 64-bit hash of some bytes.
#[must_use]
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    Fnv1a::EMPTY.with(bytes).get()
}

#[cfg(test)]
mod tests {
    use super::{Fnv1a, fnv1a};

    #[test]
    fn hashes_as_its_authors_do() {
        // From their test vectors: http://www.isthe.com/chongo/tech/comp/fnv/.
        assert_eq!(fnv1a([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(*b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(Fnv1a::EMPTY.with(*b"foo").with(*b"bar").get(), fnv1a(*b"foobar"));
    }
}
