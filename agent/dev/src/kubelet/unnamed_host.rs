//! The one call of kubelet in which it names no host: `GetInfo` on a plugin's registration socket. Its Go client then
//! sends the socket's path, percent-encoded, as `:authority` (seen with 1.36), which no client library of ours would.
//!
//! So the call is written here by hand, frame by frame, and only its being answered is looked at.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::KubeletError;
use super::channel;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// kubelet's for this call.
const DEADLINE: Duration = Duration::from_secs(1);

/// Asks for the plugin's info as kubelet does.
pub(super) async fn get_info(socket: &Path) -> Result<(), KubeletError> {
    // What comes too late is asked for again, as kubelet does.
    tokio::time::timeout(DEADLINE, ask(socket)).await.map_err(|_| KubeletError::Unreachable)?
}

async fn ask(socket: &Path) -> Result<(), KubeletError> {
    let mut stream = channel::stream(socket).await.map_err(|_| KubeletError::Unreachable)?;
    let mut call = PREFACE.to_vec();
    call.extend(frame(SETTINGS, 0, 0, &[]));
    call.extend(frame(HEADERS, END_HEADERS, 1, &fields(socket)));
    // An uncompressed message without a byte.
    call.extend(frame(DATA, END_STREAM, 1, &[0; 5]));
    stream.write_all(&call).await.map_err(|_| KubeletError::Unreachable)?;
    loop {
        let mut header = [0; 9];
        let ended = |_| KubeletError::Unreachable;
        stream.read_exact(&mut header).await.map_err(ended)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.map_err(ended)?;
        match header[3] {
            DATA => return Ok(()),
            RESET => {
                let why = "GetInfo whose :authority is the socket's path is refused by RST_STREAM";
                return Err(KubeletError::NotRegistered(why.to_owned()));
            }
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK without a table of its own and without Huffman's code.
fn fields(socket: &Path) -> Vec<u8> {
    let authority = socket.display().to_string().replace('/', "%2F");
    // :method POST and :scheme http, by index.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (0x44, "/pluginregistration.Registration/GetInfo"), // :path
        (0x41, authority.as_str()),                         // :authority
        (0x5f, "application/grpc"),                         // content-type
    ] {
        block.push(name);
        text(&mut block, value);
    }
    block.push(0x40);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

fn text(block: &mut Vec<u8>, text: &str) {
    let length = text.len();
    match u8::try_from(length) {
        Ok(short @ ..0x7f) => block.push(short),
        _ => {
            let mut left = length - 0x7f;
            block.push(0x7f);
            while left >= 0x80 {
                block.push((left & 0x7f) as u8 | 0x80);
                left >>= 7;
            }
            block.push(left as u8);
        }
    }
    block.extend(text.as_bytes());
}
