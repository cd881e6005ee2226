//! Each kind of memory holds, protects, wipes and counts what it was given.

use super::*;

/// Kilobytes of the mapping around `address` that are locked, by the kernel's own account of it alone:
/// other tests lock and unlock theirs meanwhile.
fn locked_kilobytes_at(address: usize) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let range = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        Some(hex(start)?..hex(end)?)
    };
    let holds = |line: &&str| range(line).is_some_and(|range| range.contains(&address));
    let lines = maps.lines().skip_while(|line| !holds(line)).skip(1);
    let mapping = lines.take_while(|line| range(line).is_none());
    let mut locked = mapping.filter_map(|line| line.strip_prefix("Locked:"));
    let locked = locked.next().unwrap();
    locked.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn values_are_held_and_counted_until_dropped() {
    let source = LockedMemory::new();
    let alive = |source: &LockedMemory| {
        [Protection::MemfdSecret, Protection::Locked, Protection::Unlocked]
            .map(|protection| source.counts().alive(protection))
            .iter()
            .sum::<usize>()
    };
    let memory = source.allocate(5, &mut |bytes| bytes.copy_from_slice(b"value"));
    assert_eq!(memory.expose(), b"value");
    assert_eq!(alive(&source), 1);
    drop(memory);
    assert_eq!(alive(&source), 0);
}

#[test]
fn a_volume_of_empty_values_is_held_too() {
    let memory = LockedMemory::new().allocate(0, &mut |bytes| assert!(bytes.is_empty()));
    assert_eq!(memory.expose(), b"");
}

#[test]
fn another_process_reader_cannot_read_memfd_secret() {
    let Ok((start, _)) = map_memfd_secret(4096) else {
        // Kernels without secretmem take the mlock path, which has a test of its own.
        assert!(memfd_secret(4096).is_err());
        return;
    };
    let mapping =
        Mapping { start, len: 4096, protection: Protection::MemfdSecret, counts: Arc::default() };
    mapping.counts.of(Protection::MemfdSecret).fetch_add(1, Ordering::Relaxed);
    let address = start.as_ptr() as u64;
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut byte = [0];
    assert!(std::os::unix::fs::FileExt::read_at(&memory, &mut byte, address).is_err());
    // The detector detects: ordinary memory is readable that way.
    let ordinary = b"x".to_vec();
    let read =
        std::os::unix::fs::FileExt::read_at(&memory, &mut byte, ordinary.as_ptr() as u64).unwrap();
    assert_eq!((read, byte), (1, *b"x"));
}

#[test]
fn anonymous_memory_is_locked_within_the_limit() {
    let (start, protection) = map_anonymous(64 << 10).unwrap();
    assert_eq!(protection, Protection::Locked);
    assert!(locked_kilobytes_at(start.as_ptr() as usize) >= 64);
    // The detector detects: ordinary memory isn't locked.
    let ordinary = [0_u8; 64];
    assert_eq!(locked_kilobytes_at(ordinary.as_ptr() as usize), 0);
    let mapping = Mapping { start, len: 64 << 10, protection, counts: Arc::default() };
    mapping.counts.of(protection).fetch_add(1, Ordering::Relaxed);
    assert!(mapping.bytes().iter().all(|byte| *byte == 0));
}
