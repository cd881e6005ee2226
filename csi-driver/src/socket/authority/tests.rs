use super::*;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use sotto_proto::registration::v1::registration_server::RegistrationServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::codegen::Service as _;

use crate::registration::Registration;

/// What a kubelet 1.36.3 wrote to `/var/lib/kubelet/plugins_registry/captured.example-reg.sock`: the preface, SETTINGS,
/// HEADERS of `GetInfo` with `%2Fvar%2Flib%2Fkubelet%2F...` as `:authority`, an empty message.
const KUBELETS: &str = "\
    505249202a20485454502f322e300d0a0d0a534d0d0a0d0a000000040000000000\
    00009f010400000001\
    8386459c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f\
    41b254587b8ec545868346a8b0f5b632d054aa2c35d16cc6a91158598c84d9e9516120eb4db61645cbe474d74156b0b32e8393af\
    5f8b1d75d0620d263d4c4d65647a8b9acac8b4c7602bbafaecff40027465864d833505b11f408e9acac8b0c842d6958b510f21aa9b83\
    9bd9ab40899acac8b24d49\
    4f6a7f867df7df79ab7f0000050001000000010000000000";
/// Where the name is in it, and of what length.
const NAMED: std::ops::Range<usize> = 24 + 9 + 9 + 34..24 + 9 + 9 + 34 + 50;
const PATIENCE: Duration = Duration::from_secs(10);
const DATA: u8 = 0;
const RESET: u8 = 3;

fn kubelets() -> Vec<u8> {
    let digits: Vec<u8> =
        KUBELETS.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn rewritten<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut rewriter = Rewriter::default();
    chunks.into_iter().for_each(|chunk| rewriter.take(chunk));
    rewriter.end();
    rewriter.ready
}

/// The first frame that is DATA or RST_STREAM: its type and payload.
async fn answer_to_kubelet<S>(wrap: impl FnOnce(UnixStream) -> S) -> (u8, Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, server) = UnixStream::pair().unwrap();
    let registration = RegistrationServer::new(Registration::new("csi.sotto.dev"));
    let service = service_fn(move |request| registration.clone().call(request));
    let protocol = http2::Builder::new(TokioExecutor::new());
    let served = tokio::spawn(protocol.serve_connection(TokioIo::new(wrap(server)), service));
    client.write_all(&kubelets()).await.unwrap();
    let answered = async {
        loop {
            let mut header = [0; FRAME_HEADER];
            client.read_exact(&mut header).await.unwrap();
            let (length, kind, _) = frame_header(&header).unwrap();
            let mut payload = vec![0; length];
            client.read_exact(&mut payload).await.unwrap();
            if matches!(kind, DATA | RESET) {
                return (kind, payload);
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answered).await.unwrap();
    served.abort();
    answer
}

#[tokio::test]
async fn a_kubelet_that_names_a_path_is_answered() {
    let (kind, payload) = answer_to_kubelet(AnyAuthority::of).await;
    assert_eq!(kind, DATA);
    let name = b"csi.sotto.dev";
    assert!(payload.windows(name.len()).any(|part| part == name), "{payload:?}");
}

#[tokio::test]
async fn without_it_the_library_refuses_that_kubelet() {
    let (kind, _) = answer_to_kubelet(|stream| stream).await;
    assert_eq!(kind, RESET, "if the library takes such a name by now, this module can go");
}

#[test]
fn only_the_name_is_changed() {
    let before = kubelets();
    let after = rewritten([&before[..]]);
    assert_eq!(after.len(), before.len());
    assert_eq!(
        before[NAMED.start - 1],
        HUFFMAN | NAMED.len() as u8,
        "the capture is as this test says"
    );
    assert_eq!(after[NAMED.start - 1], NAMED.len() as u8);
    assert!(after[NAMED].iter().all(|byte| *byte == NAME));
    assert_eq!(after[..NAMED.start - 1], before[..NAMED.start - 1]);
    assert_eq!(after[NAMED.end..], before[NAMED.end..]);
}

#[test]
fn padding_and_priority_are_passed() {
    // Two bytes of padding, a priority; :method GET, then :authority "/a" never indexed, plain.
    let payload = [2, 0, 0, 0, 0, 15, 0x82, 0x11, 2, b'/', b'a', 0, 0];
    let mut frame = payload;
    name(&mut frame, PADDED | PRIORITY);
    assert_eq!(frame, [2, 0, 0, 0, 0, 15, 0x82, 0x11, 2, NAME, NAME, 0, 0]);
}

#[test]
fn another_fields_value_is_left_alone() {
    // :path "/a" by index, x: "/b" by a literal name, a change of the table's size.
    let payload = [0x44, 2, b'/', b'a', 0x3f, 0x81, 0x02, 0x40, 1, b'x', 2, b'/', b'b'];
    let mut after = payload;
    name(&mut after, 0);
    assert_eq!(after, payload);
}

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same(cuts in prop::collection::vec(0_usize..224, 0..12)) {
        let (bytes, mut cuts) = (kubelets(), cuts);
        cuts.retain(|cut| *cut <= bytes.len());
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
        prop_assert_eq!(rewritten(chunks), rewritten([&bytes[..]]));
    }

    #[test]
    fn whatever_comes_no_byte_is_lost(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let after = rewritten([&bytes[..]]);
        prop_assert_eq!(after.len(), bytes.len());
    }

    #[test]
    fn any_block_is_survived(mut block in prop::collection::vec(any::<u8>(), 0..64), flags in any::<u8>()) {
        name(&mut block, flags);
    }
}
