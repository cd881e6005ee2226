//! The memory that a snapshot's values lie in, behind a trait: this crate makes no system calls.

use zeroize::Zeroizing;

/// A filled piece of memory, wiped on drop.
pub trait SecretMemory: Send + Sync {
    /// The bytes.
    fn expose(&self) -> &[u8];

    /// Whether the pages are never swapped out and never dumped.
    fn is_locked(&self) -> bool;
}

/// Where snapshots get their memory from.
pub trait SecretMemorySource: Send + Sync {
    /// Allocates `len` zeroed bytes and lets `fill` write them, once.
    fn allocate(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Box<dyn SecretMemory>;
}

/// Ordinary heap memory, wiped on drop but neither locked nor kept out of dumps: for tests.
#[derive(Default)]
pub struct HeapMemory(Zeroizing<Vec<u8>>);

impl SecretMemory for HeapMemory {
    fn expose(&self) -> &[u8] {
        &self.0
    }

    fn is_locked(&self) -> bool {
        false
    }
}

impl SecretMemorySource for HeapMemory {
    fn allocate(&self, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Box<dyn SecretMemory> {
        let mut bytes = Zeroizing::new(vec![0; len]);
        fill(&mut bytes);
        Box::new(Self(bytes))
    }
}
