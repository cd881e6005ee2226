//! Processes of their own: this test binary again, with one of the ignored tests below as its part.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;

use rustix::mm::{MapFlags, ProtFlags};
use sotto_fuse::{Negotiated, Server, Tree};

use super::volume::{DEADLINE, Records, snapshot};

const ARGUMENT: &str = "SOTTO_TEST_CHILD_ARGUMENT";
/// A line of a child's, told apart from the test harness's by its end.
const READY: &str = "child is ready";

/// What the serving child serves.
pub(crate) const CHILD_VALUE: &[u8] = b"served by a child";

/// A child that doesn't outlive its test.
pub(crate) struct Part(Child);

impl Part {
    fn start(name: &str, argument: &str, input: Stdio) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
            .env(ARGUMENT, argument)
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Serves the connection `fuse`.
    pub(crate) fn server(fuse: OwnedFd, init: &Negotiated, resend: bool) -> Self {
        let Negotiated { major, minor, max_readahead, flags, max_write } = init;
        let resend = u8::from(resend);
        let argument = format!("{major} {minor} {max_readahead} {flags} {max_write} {resend}");
        Self::start("child::serve_until_killed", &argument, Stdio::from(fuse))
    }

    /// Maps a file, says so, and touches the mapping again when told.
    pub(crate) fn mapping(path: &str) -> Self {
        Self::start("child::touch_a_mapping_twice", path, Stdio::piped())
    }

    /// Waits until the child says that it is ready.
    pub(crate) fn ready(&mut self) {
        let output = self.0.stdout.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            let _ = sender.send(lines.any(|line| line.ends_with(READY)));
            // Reads on, so that the child never blocks on its output.
            lines.for_each(drop);
        });
        assert!(receiver.recv_timeout(DEADLINE).unwrap(), "the child ended too early");
    }

    /// Tells the child to go on, and waits for its end.
    pub(crate) fn go_on(mut self) -> ExitStatus {
        drop(self.0.stdin.take());
        self.0.wait().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say_ready() {
    let mut output = std::io::stdout();
    writeln!(output, "{READY}").unwrap();
    output.flush().unwrap();
}

#[test]
#[ignore = "a part that other tests start"]
fn serve_until_killed() {
    let argument = std::env::var(ARGUMENT).unwrap();
    let numbers: Vec<u64> = argument.split(' ').map(|number| number.parse().unwrap()).collect();
    let [major, minor, max_readahead, flags, max_write, resend] = numbers[..] else {
        panic!("not six numbers: {argument}");
    };
    let init = Negotiated {
        major: major as u32,
        minor: minor as u32,
        max_readahead: max_readahead as u32,
        flags,
        max_write: max_write as u32,
    };
    let tree = Arc::new(Tree::new(snapshot(1, &[("a", CHILD_VALUE)])));
    let fuse = rustix::io::dup(std::io::stdin()).unwrap();
    let audit = Arc::new(Records::default());
    let server = Server::start(tree, fuse, &init, resend == 1, audit, "child").unwrap();
    say_ready();
    assert!(server.wait_ended(DEADLINE * 3).is_some(), "nobody killed the child");
}

#[test]
#[ignore = "a part that other tests start"]
fn touch_a_mapping_twice() {
    let file = File::open(std::env::var(ARGUMENT).unwrap()).unwrap();
    // SAFETY: a fresh read-only mapping, never unmapped; the second access may end the process, which
    // is what is tested.
    unsafe {
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
        let start = rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, flags, &file, 0);
        let start = start.unwrap().cast::<u8>();
        assert_eq!(start.read_volatile(), b'x');
        say_ready();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        start.read_volatile();
    }
}

/// Reads a file's first bytes through an fd that was opened before.
pub(crate) fn read_open(file: &File) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64];
    let size = file.read_at(&mut buffer, 0)?;
    buffer.truncate(size);
    Ok(buffer)
}
