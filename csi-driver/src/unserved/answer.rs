//! What a request is answered with where nobody serves.
//!
//! ENOMEM and not EIO to LOOKUP: a LOOKUP that revalidates a name and gets EIO makes the kernel drop the
//! name, and unmount what another volume has mounted on it.

const FORGET: u32 = 2;
const LOOKUP: u32 = 1;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const NOTIFY_REPLY: u32 = 41;
const BATCH_FORGET: u32 = 42;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const REPLY_BYTES: u32 = 16;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// These bytes are written, at once.
    Error([u8; REPLY_BYTES as usize]),
    /// It has no answer.
    Nothing,
    /// The connection isn't initialised: an error would end it, so nobody answers here.
    NotOurs,
}

/// The answer to what one read of a device gave.
pub(super) fn to(request: &[u8]) -> Answer {
    let (Some(opcode), Some(unique)) = (array(request, 4), array::<8>(request, 8)) else {
        return Answer::NotOurs;
    };
    let error = match u32::from_ne_bytes(opcode) {
        FORGET | BATCH_FORGET | INTERRUPT | NOTIFY_REPLY => return Answer::Nothing,
        INIT => return Answer::NotOurs,
        LOOKUP => ENOMEM,
        _ => EIO,
    };
    let mut reply = [0; REPLY_BYTES as usize];
    reply[..4].copy_from_slice(&REPLY_BYTES.to_ne_bytes());
    reply[4..8].copy_from_slice(&(-error).to_ne_bytes());
    reply[8..].copy_from_slice(&unique);
    Answer::Error(reply)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(opcode: u32, unique: u64) -> Vec<u8> {
        let mut bytes = 40_u32.to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(unique.to_ne_bytes());
        bytes.resize(40, 0);
        bytes
    }

    fn error_of(opcode: u32, unique: u64) -> Option<i32> {
        match to(&request(opcode, unique)) {
            Answer::Error(reply) => {
                assert_eq!(
                    (reply[..4].to_vec(), reply[8..].to_vec()),
                    (16_u32.to_ne_bytes().to_vec(), unique.to_ne_bytes().to_vec())
                );
                Some(i32::from_ne_bytes(reply[4..8].try_into().unwrap()))
            }
            Answer::Nothing => None,
            Answer::NotOurs => panic!("it is not ours"),
        }
    }

    #[test]
    fn a_lookup_gets_no_memory_so_that_nested_mounts_stay() {
        assert_eq!(error_of(LOOKUP, 6), Some(-ENOMEM));
    }

    #[test]
    fn every_other_question_gets_an_io_error_a_resent_one_too() {
        for opcode in [3, 5, 14, 15, 18, 25, 27, 28, 44, 52, 999] {
            assert_eq!(error_of(opcode, 6), Some(-EIO), "{opcode}");
            assert_eq!(error_of(opcode, 1 << 63 | 6), Some(-EIO), "{opcode}");
        }
    }

    #[test]
    fn what_has_no_answer_gets_none_and_init_is_left() {
        for opcode in [FORGET, BATCH_FORGET, INTERRUPT, NOTIFY_REPLY] {
            assert_eq!(error_of(opcode, 6), None, "{opcode}");
        }
        assert_eq!(to(&request(INIT, 2)), Answer::NotOurs);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_left(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = to(&bytes);
        }
    }
}
