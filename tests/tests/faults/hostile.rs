//! Somebody at a socket, a path or a version who shouldn't be.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{CWD, RenameFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sotto_dev::node::{AGENT_ID, may_become};
use sotto_dev::store::Fault;
use sotto_handoff::handshake::MAX_VERSION;
use sotto_handoff::message::{Frame, Hello, Role, frame::Body};
use sotto_handoff::packet::Connection;
use sotto_tests::chance::Chance;
use sotto_tests::files;
use sotto_tests::scene::Scene;
use sotto_tests::served::{Served, is_gone, value};
use sotto_tests::table::Outcome;

const SOON: Duration = Duration::from_secs(10);

/// Connects to the agents' socket as this user: on a thread of its own, since only that becomes it.
fn connect(socket: PathBuf, uid: Option<u32>) -> std::io::Result<OwnedFd> {
    let connecting = std::thread::spawn(move || {
        if let Some(id) = uid {
            become_user(id)?;
        }
        let end = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&end, &SocketAddrUnix::new(socket.as_os_str().as_bytes())?)?;
        Ok(end)
    });
    connecting.join().map_err(|_| std::io::Error::other("the thread panicked"))?
}

fn become_user(id: u32) -> std::io::Result<()> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

fn hello(min_version: u32, max_version: u32) -> Frame {
    let body = Body::Hello(Hello {
        min_version,
        max_version,
        role: Role::NodeAgent.into(),
        instance: "faults".to_owned(),
        software: "later/9".to_owned(),
    });
    Frame { request: 0, answer: false, body: Some(body) }
}

/// The answer to a hello; `None` if the driver hangs up.
async fn answer(socket: PathBuf, uid: Option<u32>, said: Frame) -> anyhow::Result<Option<Body>> {
    let connection = Connection::new(connect(socket, uid)?)?;
    if connection.send(&said, None).await.is_err() {
        return Ok(None);
    }
    let received = tokio::time::timeout(SOON, connection.receive()).await?;
    Ok(received.ok().and_then(|received| received.frame.body))
}

pub(crate) async fn peer_takes_the_handoff_socket() -> anyhow::Result<Outcome> {
    if !may_become(AGENT_ID) {
        return Ok(Outcome::not_here("this user namespace has no other users"));
    }
    let served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    let socket = served.scene.node().path("run/node.sock");
    let (readers, current) = (served.readers(2)?, hello(1, MAX_VERSION));
    // Root of another container gets past the socket's mode, and no further.
    anyhow::ensure!(
        answer(socket.clone(), None, current.clone()).await?.is_none(),
        "root is taken"
    );
    let other = connect(socket.clone(), Some(1000)).err().context("uid 1000 may connect")?;
    anyhow::ensure!(other.kind() == std::io::ErrorKind::PermissionDenied, "{other}");
    let log = served.scene.node().csi().log().text();
    anyhow::ensure!(log.contains("only uid 65532 may connect"), "{log}");
    // The check can fail: the agent's own user is welcome.
    let agent = answer(socket, Some(AGENT_ID), current).await?;
    anyhow::ensure!(matches!(agent, Some(Body::Welcome(_))), "not even the agent is");
    readers.read_on(100).await?;
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome)
}

pub(crate) async fn agent_is_of_another_version() -> anyhow::Result<Outcome> {
    if !may_become(AGENT_ID) {
        return Ok(Outcome::not_here("this user namespace has no other users"));
    }
    let served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    let socket = served.scene.node().path("run/node.sock");
    for (min, max, agreed) in
        [(1, MAX_VERSION + 1, true), (1, 1, true), (MAX_VERSION + 1, MAX_VERSION + 2, false)]
    {
        let body = answer(socket.clone(), Some(AGENT_ID), hello(min, max)).await?;
        match body {
            Some(Body::Welcome(welcome)) if agreed => anyhow::ensure!(welcome.version <= max),
            Some(Body::Refused(refused)) if !agreed => {
                anyhow::ensure!(refused.message.contains("speaks versions"), "{}", refused.message);
            }
            _ => anyhow::bail!("versions {min} to {max} were not answered so"),
        }
    }
    served.all_served().await?;
    served.all_show(&value(1)).await?;
    served.stop().await?;
    Ok(Outcome::held()
        .noting("handshake over the real socket; frames: agent/handoff/tests/compatibility.rs; agents without Return and Ping: csi-driver/tests; there is no release yet to play against"))
}

pub(crate) async fn bytes_are_malformed() -> anyhow::Result<Outcome> {
    const TRIES: usize = 200;
    let served = Served::start(Scene::embedded().await?, 1, &[]).await?;
    let node = served.scene.node();
    let pids = (node.csi().pid(), node.agent().pid(), node.worker());
    let seed = Chance::seed();
    let mut chance = Chance::of(seed);
    let streams = ["csi.sock", "kubelet/plugins_registry/csi.sotto.dev-reg.sock"];
    for number in 0..TRIES {
        said_to_a_stream(node.path(streams[number % streams.len()]), &mut chance).await?;
        if number % 10 == 0 && may_become(AGENT_ID) {
            let end = connect(node.path("run/node.sock"), Some(AGENT_ID))?;
            let bytes = noise(&mut chance, 200);
            let _ = rustix::net::send(&end, &bytes, rustix::net::SendFlags::NOSIGNAL);
        }
    }
    for (number, fault) in
        [Fault::Garbage, Fault::Disconnect, Fault::Status(418)].into_iter().enumerate()
    {
        served.scene.store().fail(None, fault, None);
        served.scene.refusal(&served.pod(number + 10, &[])).await?;
        served.scene.store().heal();
    }
    let next = served.pod(50, &[]);
    served.scene.publish(&next).await.context("the next pod")?;
    served.scene.stop(&next).await?;
    anyhow::ensure!(
        pids == (node.csi().pid(), node.agent().pid(), node.worker()),
        "one was restarted"
    );
    for process in [node.csi(), node.agent()] {
        let log = process.log().text();
        anyhow::ensure!(
            process.status().is_none() && !log.contains("panicked"),
            "SEED={seed}: {log}"
        );
    }
    served.stop().await?;
    Ok(Outcome::held().noting(format!("{TRIES} connections; FUSE: agent/fuse/src/dispatch/tests")))
}

/// At least one byte.
fn noise(chance: &mut Chance, most: usize) -> Vec<u8> {
    (0..1 + chance.below(most)).map(|_| chance.below(256) as u8).collect()
}

/// Noise, half of the time as frames of HTTP/2.
async fn said_to_a_stream(socket: PathBuf, chance: &mut Chance) -> anyhow::Result<()> {
    let mut bytes = noise(chance, 400);
    if chance.below(2) == 0 {
        bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }
    files::blocking(move || {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        // It may hang up before it has read everything.
        let _ = stream.write_all(&bytes);
        Ok(())
    })
    .await
}

/// Somebody exchanges a directory on the way to the target with a symlink, as fast as the kernel can.
pub(crate) async fn symlinks_race_with_the_driver() -> anyhow::Result<Outcome> {
    const ROUNDS: usize = 25;
    let served = Served::start(Scene::embedded().await?, 0, &[]).await?;
    let outside = served.scene.node().path("outside");
    let (mut mounted, swaps) = (0, Arc::<AtomicUsize>::default());
    for round in 0..ROUNDS {
        let pod = served.pod(round, &[]);
        let (kubelet, volume) = (served.scene.kubelet(), &pod.volumes[0]);
        let target = kubelet.target(&pod, volume);
        let parent = target.parent().context("a parent")?.to_owned();
        let swapped = if round % 2 == 0 { parent.clone() } else { above(&parent, 2)? };
        // What is at the symlink's end looks like what is expected there.
        let inside = parent.strip_prefix(&swapped)?;
        let decoy = outside.join(round.to_string());
        std::fs::create_dir_all(decoy.join(inside))?;
        std::fs::create_dir_all(&parent)?;
        let swapping = Swapping::start(swapped, &decoy, Arc::clone(&swaps))?;
        let request = kubelet.request(&pod, volume);
        let id = sotto_dev::kubelet::volume_id(&pod, volume);
        for _ in 0..3 {
            mounted += usize::from(kubelet.send(request.clone()).await.is_ok());
            // Either may be refused.
            let _ = kubelet.send_unpublish(&id, &target.to_string_lossy()).await;
        }
        swapping.end()?;
        kubelet.send_unpublish(&id, &target.to_string_lossy()).await.context("its end")?;
        anyhow::ensure!(is_gone(&target)?, "something is left");
        let strangers = below(&decoy)?;
        anyhow::ensure!(
            strangers.iter().all(|it| decoy.join(inside).starts_with(it)),
            "{strangers:?}"
        );
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let astray = table.lines().find(|line| line.contains(&outside.display().to_string()));
    anyhow::ensure!(astray.is_none(), "mounted outside: {astray:?}");
    anyhow::ensure!(mounted > 0, "every publish lost the race: nothing is shown");
    let swaps = swaps.load(Ordering::Relaxed);
    Ok(Outcome::held().noting(format!("{swaps} exchanges, {mounted} of {} mounted", 3 * ROUNDS)))
}

fn above(path: &Path, levels: usize) -> anyhow::Result<PathBuf> {
    Ok(path.ancestors().nth(levels).context("not so deep")?.to_owned())
}

fn below(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(below(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}

/// A thread that exchanges a directory with a symlink.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Swapping {
    fn start(directory: PathBuf, decoy: &Path, swaps: Arc<AtomicUsize>) -> std::io::Result<Self> {
        let mut name: OsString = directory.file_name().unwrap_or_default().to_owned();
        name.push(".link");
        let link = directory.with_file_name(name);
        std::os::unix::fs::symlink(decoy, &link)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // There and back, so that the directory is in its place at the end.
                for _ in 0..2 {
                    let exchange = RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, &directory, CWD, &link, exchange)?;
                }
                swaps.fetch_add(2, Ordering::Relaxed);
            }
            std::fs::remove_file(&link)
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        Ok(ended?)
    }
}
