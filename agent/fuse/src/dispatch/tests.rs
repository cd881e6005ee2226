//! Every request is answered as fuser's own session answers it, byte for byte.

mod reference;

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{Config, Session, SessionACL};
use proptest::prelude::*;
use sotto_core::audit::{Decision, Opener};
use sotto_core::fuse_init::{InitFlags, Negotiated};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::snapshot::{
    Generation, HIDDEN_INODE, HeapMemory, Inode, Object, ROOT_INODE, STATUS_INODE, Snapshot,
    SnapshotBuilder,
};

use super::Dispatcher;
use crate::audit::AuditSink;
use crate::tree::{Refusal, Tree};
use crate::wire::request::Request;
use reference::Adapter;

const HANDLE: u64 = 0x5077_0000_0001;
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Opens(Mutex<Vec<(String, u64, Opener, Decision)>>);

impl AuditSink for Opens {
    fn opened(
        &self,
        object: &Arc<str>,
        generation: Generation,
        opener: Opener,
        decision: Decision,
    ) {
        self.0.lock().unwrap().push((object.to_string(), generation.get(), opener, decision));
    }
}

fn snapshot(generation: u64, values: &[(&str, &str)]) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new(Limits::default());
    for (path, value) in values {
        let object = Object {
            path: ObjectPath::parse(path).unwrap(),
            mode: None,
            version: generation.to_string(),
            value: sotto_core::secret::SecretBytes::new(value.as_bytes().to_vec()),
        };
        builder.add(object).unwrap();
    }
    let created = UNIX_EPOCH + Duration::new(1_700_000_000 + generation, 5);
    let generation = Generation::new(generation).unwrap();
    Arc::new(builder.build(generation, created, Some(2000), &HeapMemory::default()).unwrap())
}

/// A volume between two generations, with one object refused.
fn tree() -> Arc<Tree> {
    let first = [("password", "tick"), ("tls/crt", "certificate"), ("gone", "x"), ("empty", "")];
    let tree = Tree::new(snapshot(1, &first));
    tree.set_status(b"{}".to_vec(), UNIX_EPOCH);
    tree.refuse(&ObjectPath::parse("gone").unwrap(), Refusal::Denied);
    tree.stage(snapshot(2, &[("password", "tock"), ("tls/crt", "another"), ("new", "y")])).unwrap();
    Arc::new(tree)
}

fn inodes() -> Vec<u64> {
    let generation = |number| Generation::new(number).unwrap();
    let mut inodes = vec![ROOT_INODE.0, HIDDEN_INODE.0, STATUS_INODE.0, 0, 7, u64::MAX];
    for number in 1..4 {
        inodes.push(Inode::of_data_link(generation(number)).0);
        inodes.extend((0..6).map(|index| Inode::of_node(generation(number), index).0));
    }
    inodes.extend(["password", "tls", "gone", "nothing"].map(|name| Inode::of_link(name).0));
    inodes
}

const NAMES: [&[u8]; 12] = [
    b"password",
    b"tls",
    b"crt",
    b"gone",
    b"..data",
    b"..data_tmp",
    b"..1",
    b"..2",
    b"..sotto",
    b"status.json",
    b"\xff\xfe",
    b"..data/password",
];

/// One opcode with a body of its shape, from a source of choices.
fn body(opcode: u32, choices: &[u64]) -> Vec<u8> {
    let choice = |index: usize| choices[index % choices.len()];
    let name = |index: usize| {
        let mut name = NAMES[choice(index) as usize % NAMES.len()].to_vec();
        name.push(0);
        name
    };
    let inodes = inodes();
    let inode = |index: usize| inodes[choice(index) as usize % inodes.len()].to_ne_bytes();
    let word = |value: u64| (value as u32).to_ne_bytes();
    let span = || {
        let size = [0, 30, 100, 300, 4096][choice(1) as usize % 5];
        let offset = [0, 1, 2, 3, 1 << 20, 1 << 62][choice(2) as usize % 6];
        [&0_u64.to_ne_bytes()[..], &u64::to_ne_bytes(offset), &word(size), &[0; 20]].concat()
    };
    match opcode {
        1 | 10 | 11 => name(0),
        3 => vec![0; 16],
        4 => {
            let valid =
                [1 << 5, 1 << 4, 1 << 3, 1 << 0, 0, 1 << 5 | 1 << 10][choice(0) as usize % 6];
            let mut body = vec![0; 88];
            body[..4].copy_from_slice(&word(valid));
            body[40..48].copy_from_slice(&1_800_000_000_u64.to_ne_bytes());
            body[60..64].copy_from_slice(&word(9));
            body
        }
        6 => [name(0), name(1)].concat(),
        8 => [vec![0; 16], name(0)].concat(),
        9 => [vec![0; 8], name(0)].concat(),
        12 => [inode(0).to_vec(), name(1), name(2)].concat(),
        13 => [inode(0).to_vec(), name(1)].concat(),
        14 => [word(choice(0) % 4), word(0)].concat(),
        15 | 28 | 44 => span(),
        18 => {
            let handle = if choice(0).is_multiple_of(2) { HANDLE } else { 3 };
            [&handle.to_ne_bytes()[..], &[0; 16]].concat()
        }
        27 | 30 => vec![0; 16],
        29 => vec![0; 24],
        34 => [word(choice(0) % 8), word(0)].concat(),
        45 => {
            [inode(0).to_vec(), vec![(choice(3) % 2) as u8, 0, 0, 0, 0, 0, 0, 0], name(1), name(2)]
                .concat()
        }
        _ => Vec::new(),
    }
}

/// Those that the kernel may send on a connection with our flags; WRITE and its like are refused by the
/// mount, but a mapping of a later kernel is not ours to trust.
const OPCODES: [u32; 22] =
    [1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 27, 28, 29, 34, 44, 45, 30];

fn request(opcode: u32, inode: u64, uid: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((40 + body.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    bytes.extend_from_slice(&77_u64.to_ne_bytes());
    bytes.extend_from_slice(&inode.to_ne_bytes());
    for number in [uid, 3000, 4711, 0] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// fuser's session on a socket: the handshake, then one reply a request.
struct Reference {
    kernel: UnixDatagram,
    opens: Arc<Opens>,
    session: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Reference {
    fn start() -> Self {
        let (kernel, session_end) = UnixDatagram::pair().unwrap();
        kernel.set_read_timeout(Some(DEADLINE)).unwrap();
        let flags = InitFlags::WANTED.0;
        let init = Negotiated { major: 7, minor: 40, max_readahead: 4096, flags, max_write: 4096 };
        kernel.send(&init.synthetic_request()).unwrap();
        let opens = Arc::new(Opens::default());
        let adapter = Adapter::new(tree(), Arc::clone(&opens) as _, false, HANDLE);
        let fd = session_end.into();
        let session = Session::from_fd(adapter, fd, SessionACL::All, Config::default()).unwrap();
        assert!(rustix::fs::fstat(session.as_fd()).is_ok());
        assert_eq!(kernel.recv(&mut [0; 256]).unwrap(), 80);
        Self { kernel, opens, session: std::thread::spawn(move || session.run()) }
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        self.kernel.send(request).unwrap();
        let mut reply = vec![0; 1 << 16];
        let size = self.kernel.recv(&mut reply).unwrap();
        reply.truncate(size);
        reply
    }

    fn end(self) {
        let destroy = request(38, 0, 0, &[]);
        assert_eq!(self.answer(&destroy).len(), 16);
        self.session.join().unwrap().unwrap();
    }
}

fn ours(dispatcher: &Dispatcher, bytes: &[u8]) -> Vec<u8> {
    let request = Request::parse(bytes).unwrap();
    let reply = dispatcher.answer(&request).unwrap();
    [&reply.header(request.unique)[..], reply.body()].concat()
}

fn compare(steps: &[(u32, usize, u32, Vec<u64>)]) -> Result<(), TestCaseError> {
    let reference = Reference::start();
    let opens = Arc::new(Opens::default());
    let dispatcher = Dispatcher::new(tree(), Arc::clone(&opens) as _, false, HANDLE);
    let inodes = inodes();
    for (opcode, inode, uid, choices) in steps {
        let bytes = request(*opcode, inodes[inode % inodes.len()], *uid, &body(*opcode, choices));
        prop_assert_eq!(ours(&dispatcher, &bytes), reference.answer(&bytes), "opcode {}", opcode);
    }
    prop_assert_eq!(&*opens.0.lock().unwrap(), &*reference.opens.0.lock().unwrap());
    reference.end();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_request_is_answered_as_fuser_answers_it(
        steps in proptest::collection::vec(
            (
                proptest::sample::select(OPCODES.to_vec()),
                any::<usize>(),
                proptest::sample::select(vec![0_u32, 1000]),
                proptest::collection::vec(any::<u64>(), 4),
            ),
            1..120,
        ),
    ) {
        compare(&steps)?;
    }
}

#[test]
fn a_rotation_is_answered_as_fuser_answers_it() {
    let root = 0; // the place of the root among the inodes
    let place = |name: &[u8]| NAMES.iter().position(|it| *it == name).unwrap() as u64;
    let (next, new_link, link) = (place(b"..2"), place(b"..data_tmp"), place(b"..data"));
    let steps = [
        (9, root, 0, vec![next]),
        (6, root, 0, vec![new_link, next]),
        (45, root, 0, vec![0, new_link, link, 0]),
        (44, root, 0, vec![0, 4, 0]),
        (1, root, 1000, vec![place(b"password")]),
    ];
    compare(&steps).unwrap();
    // It did turn.
    let dispatcher = Dispatcher::new(tree(), Arc::new(Opens::default()), false, HANDLE);
    for (opcode, _, uid, choices) in &steps[..3] {
        let bytes = request(*opcode, ROOT_INODE.0, *uid, &body(*opcode, choices));
        let reply = ours(&dispatcher, &bytes);
        assert_eq!(reply[4..8], [0; 4], "opcode {opcode}");
    }
    assert_eq!(dispatcher.tree.current().generation().get(), 2);
}

#[test]
fn what_needs_no_answer_gets_none_and_what_is_malformed_gets_an_error() {
    let dispatcher = Dispatcher::new(tree(), Arc::new(Opens::default()), false, HANDLE);
    for opcode in [2, 41, 42] {
        let bytes = request(opcode, 1, 0, &[0; 16]);
        assert!(dispatcher.answer(&Request::parse(&bytes).unwrap()).is_none());
    }
    let reply = ours(&dispatcher, &request(1, 1, 0, b"unended"));
    assert_eq!(reply[4..8], (-libc::EIO).to_ne_bytes());
}
