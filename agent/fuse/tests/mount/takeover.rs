//! A server is killed; the next one attaches to the same connection. No read fails.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sotto_core::fuse_init::READ_BUFFER_BYTES;
use sotto_fuse::Tree;

use super::child::{CHILD_VALUE, Part, read_open};
use super::volume::{DEADLINE, Mount, Records, snapshot};

fn serve_in_a_child(mount: &Mount, resend: bool) -> Part {
    let mut server = Part::server(rustix::io::dup(&mount.fuse).unwrap(), &mount.init, resend);
    server.ready();
    server
}

/// Reads in a loop until told to stop; the end is awaited through the channel, because a read that nobody
/// answers can't be joined.
fn read_all_the_time(
    path: PathBuf,
    done: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
) -> mpsc::Receiver<io::Result<()>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut result = Ok(());
        while result.is_ok() && !done.load(Ordering::Relaxed) {
            result = fs::read(&path).map(|value| assert_eq!(value, CHILD_VALUE));
            reads.fetch_add(1, Ordering::Relaxed);
        }
        let _ = sender.send(result);
    });
    receiver
}

#[test]
fn readers_outlive_any_number_of_killed_servers() {
    let mount = Mount::new();
    let mut server = serve_in_a_child(&mount, false);
    let (done, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let path = mount.path().join("a");
    let reader = || read_all_the_time(path.clone(), Arc::clone(&done), Arc::clone(&reads));
    let readers: Vec<_> = (0..4).map(|_| reader()).collect();
    for _ in 0..5 {
        server.kill();
        let before = reads.load(Ordering::Relaxed);
        server = serve_in_a_child(&mount, true);
        let start = Instant::now();
        while reads.load(Ordering::Relaxed) < before + 100 {
            assert!(start.elapsed() < DEADLINE, "the readers hang");
            std::thread::yield_now();
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.recv_timeout(DEADLINE).expect("a reader hangs").expect("a read failed");
    }
    server.kill();
}

#[test]
fn an_open_file_and_its_inode_outlive_the_server() {
    let mount = Mount::new();
    let server = serve_in_a_child(&mount, false);
    let file = fs::File::open(mount.path().join("a")).unwrap();
    let number = file.metadata().unwrap().ino();
    server.kill();
    let (tree, audit) = (Arc::new(Tree::new(snapshot(1, &[("a", CHILD_VALUE)]))), Arc::default());
    let later = mount.serve(&tree, &audit, true);
    assert!(later.invalidate(tree.current().nodes()[1].inode).unwrap());
    assert_eq!(read_open(&file).unwrap(), CHILD_VALUE);
    assert_eq!(fs::metadata(mount.path().join("a")).unwrap().ino(), number);
    drop(file);
    assert_eq!(fs::read(mount.path().join("a")).unwrap(), CHILD_VALUE);
}

#[test]
fn a_request_that_waits_for_the_first_server_is_answered_by_it() {
    let mount = Mount::new();
    let path = mount.path().join("a");
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || sender.send(fs::read(path)).unwrap());
    let (tree, audit) = (Arc::new(Tree::new(snapshot(1, &[("a", b"late")]))), Arc::default());
    let audit: Arc<Records> = audit;
    let _server = mount.serve(&tree, &audit, true);
    let read = receiver.recv_timeout(DEADLINE).expect("the reader hangs");
    assert_eq!(read.unwrap(), b"late");
    reader.join().unwrap();
}

#[test]
fn a_request_that_a_server_took_with_it_is_answered_by_the_next_one_if_it_asks() {
    let mount = Mount::new();
    let path = mount.path().join("a");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(fs::read(path)));
    // Read, and never answered: as by a server that was killed at this moment.
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    assert!(rustix::io::read(&mount.fuse, &mut buffer).unwrap() > 0);
    let (tree, audit) = (Arc::new(Tree::new(snapshot(1, &[("a", b"again")]))), Arc::default());
    let _silent = mount.serve(&tree, &audit, false);
    let waited = receiver.recv_timeout(Duration::from_millis(200));
    assert!(waited.is_err(), "without RESEND the request is lost: {waited:?}");
    let _asking = mount.serve(&tree, &audit, true);
    let read = receiver.recv_timeout(DEADLINE).expect("the reader hangs");
    assert_eq!(read.unwrap(), b"again");
}
