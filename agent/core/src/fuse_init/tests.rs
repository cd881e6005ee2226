//! INIT requests of several kernels, and bytes that are none.

use super::*;
use proptest::prelude::*;

fn request(minor: u32, flags: u64) -> Vec<u8> {
    let kernel =
        Negotiated { major: MAJOR, minor, max_readahead: 1 << 20, flags, max_write: MAX_WRITE };
    let mut bytes = kernel.synthetic_request().to_vec();
    bytes[8..16].copy_from_slice(&0x1234_5678_9abc_u64.to_ne_bytes());
    bytes
}

#[test]
fn a_recent_kernel_gets_what_we_want_and_no_more() {
    let request = InitRequest::parse(&request(45, u64::MAX)).unwrap();
    let (reply, agreed) = request.answer(IdMapping::Off);
    assert_eq!(InitFlags(agreed.flags), InitFlags::WANTED);
    assert_eq!((agreed.major, agreed.minor), (7, 40));
    assert!(agreed.can_resend() && !agreed.is_id_mapped());
    assert_eq!(word(&reply, 0), Some(80));
    assert_eq!(word(&reply, 4), Some(0), "no error");
    assert_eq!(array(&reply, 8), Some(0x1234_5678_9abc_u64.to_ne_bytes()));
    assert_eq!(word(&reply, 24), Some(128 << 10));
    assert_eq!(word(&reply, 28), Some(InitFlags::WANTED.0 as u32));
    assert_eq!(word(&reply, 48), Some((InitFlags::WANTED.0 >> 32) as u32));
}

#[test]
fn an_id_mapped_mount_is_negotiated_only_on_request() {
    let request = InitRequest::parse(&request(45, u64::MAX)).unwrap();
    assert!(request.answer(IdMapping::Allowed).1.is_id_mapped());
    assert!(!request.answer(IdMapping::Off).1.is_id_mapped());
}

#[test]
fn nothing_is_agreed_upon_that_the_kernel_does_not_offer() {
    let offered = InitFlags::ASYNC_READ | InitFlags::INIT_EXT;
    let request = InitRequest::parse(&request(36, offered.0)).unwrap();
    let (_, agreed) = request.answer(IdMapping::Allowed);
    assert_eq!(agreed.flags, offered.0);
    assert_eq!(agreed.minor, 36);
    assert!(!agreed.can_resend());
}

#[test]
fn a_kernel_without_a_second_word_of_flags_is_understood() {
    let mut bytes = request(34, InitFlags::ASYNC_READ.0);
    bytes.truncate(SHORT_REQUEST_BYTES);
    put(&mut bytes, 0, SHORT_REQUEST_BYTES as u32);
    let (_, agreed) = InitRequest::parse(&bytes).unwrap().answer(IdMapping::Allowed);
    assert_eq!(agreed.flags, InitFlags::ASYNC_READ.0);
}

#[test]
fn what_is_no_usable_init_is_refused() {
    let good = request(45, 0);
    assert_eq!(InitRequest::parse(&[]), Err(InitError::Truncated(0)));
    assert_eq!(InitRequest::parse(&good[..103]), Err(InitError::Truncated(103)));
    let mut lookup = good.clone();
    put(&mut lookup, 4, 1);
    assert_eq!(InitRequest::parse(&lookup), Err(InitError::NotInit(1)));
    for (major, minor) in [(6, 45), (8, 0), (7, 33)] {
        let mut other = good.clone();
        put(&mut other, 40, major);
        put(&mut other, 44, minor);
        assert_eq!(InitRequest::parse(&other), Err(InitError::Version { major, minor }));
    }
    // Says that it has a second word of flags and ends before it.
    let mut cut = request(36, InitFlags::INIT_EXT.0);
    cut.truncate(SHORT_REQUEST_BYTES);
    put(&mut cut, 0, SHORT_REQUEST_BYTES as u32);
    assert_eq!(InitRequest::parse(&cut), Err(InitError::Truncated(56)));
}

#[test]
fn a_later_server_reads_what_the_first_agreed_upon() {
    let (_, agreed) = InitRequest::parse(&request(45, u64::MAX)).unwrap().answer(IdMapping::Off);
    let again = InitRequest::parse(&agreed.synthetic_request()).unwrap();
    assert_eq!(again.answer(IdMapping::Off).1, agreed);
}

#[test]
fn the_resend_notification_has_the_layout_of_an_out_header() {
    assert_eq!(word(&RESEND, 0), Some(16));
    assert_eq!(word(&RESEND, 4), Some(7));
    assert_eq!(RESEND[8..], [0; 8]);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = InitRequest::parse(&bytes);
    }
}
