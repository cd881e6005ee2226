//! The worker's part: what it is told by the script's word for its start, and what it says of what it found.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::net::SendFlags;
use sotto_supervisor::take_up;

use super::{DEADLINE, HOPELESS, SCRIPT, STARTS};

/// Volumes: of each there is more to be said than fits into a socket at once.
pub(crate) const MANY: usize = 600;
/// The byte of a packet that leaves values.
const VALUES: u8 = 2;

fn say(text: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{text}").unwrap();
    output.flush().unwrap();
}

fn kill_self() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
    unreachable!("SIGKILL")
}

fn wait_for_a_signal() -> ! {
    loop {
        std::thread::park();
    }
}

/// SIGTERM waits, since it was never released.
fn wait_until_told_to_end() {
    let end = Instant::now() + DEADLINE;
    let is_pending = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        let pending = u64::from_str_radix(pending.trim(), 16).unwrap();
        pending & (1 << (rustix::process::Signal::TERM.as_raw() - 1)) != 0
    };
    while !is_pending() {
        assert!(Instant::now() < end, "nobody tells it to end");
        std::thread::yield_now();
    }
}

/// An address in its stack.
pub(crate) fn on_a_thread_that_ended() -> usize {
    let thread = std::thread::spawn(|| {
        let here = 0_u8;
        (&raw const *std::hint::black_box(&here)).addr()
    });
    thread.join().unwrap()
}

pub(crate) fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |hexadecimal| usize::from_str_radix(hexadecimal, 16).unwrap();
    let ranges = maps.lines().filter_map(|line| line.split_once(' ')?.0.split_once('-'));
    ranges.into_iter().any(|(start, end)| (number(start)..number(end)).contains(&address))
}

/// Does what the script's word for this start says.
pub(crate) fn worker_part() {
    let mut starts =
        std::fs::OpenOptions::new().append(true).open(std::env::var(STARTS).unwrap()).unwrap();
    let number = starts.metadata().unwrap().len() as usize;
    starts.write_all(b".").unwrap();
    let script = std::env::var(SCRIPT).unwrap();
    let words: Vec<&str> = script.split(' ').collect();
    let taken = take_up().unwrap().unwrap();
    let word = words[number.min(words.len() - 1)];
    if word != "give-up" {
        sotto_supervisor::release_signals().unwrap();
    }
    let text = |fd: Option<std::os::fd::OwnedFd>| {
        let mut text = String::new();
        let mut file = std::fs::File::from(fd?);
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        Some(text)
    };
    let times: Vec<_> =
        taken.kept.values().map(|kept| kept.values.as_ref().map(|_| kept.confirmed_ms)).collect();
    let kept: Vec<String> = taken
        .kept
        .into_iter()
        .map(|(key, kept)| {
            let (connection, values) = (text(kept.connection), text(kept.values));
            format!("{key}={connection:?}/{values:?}@{}", kept.confirmed_ms)
        })
        .collect();
    let keeper = taken.keeper;
    match word {
        "keep-and-die" => {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"fd").unwrap();
            let mut values = tempfile::tempfile().unwrap();
            values.write_all(b"old").unwrap();
            keeper.keep_connection("csi-1", file.as_fd()).unwrap();
            keeper.keep_connection("csi-2", file.as_fd()).unwrap();
            keeper.keep_values("csi-1", values.as_fd(), 3).unwrap();
            let mut values = tempfile::tempfile().unwrap();
            values.write_all(b"new").unwrap();
            keeper.keep_values("csi-1", values.as_fd(), 3).unwrap();
            keeper.forget("csi-2").unwrap();
            kill_self()
        }
        "keep-many-and-die" => {
            let file = tempfile::tempfile().unwrap();
            for number in 0..600 {
                keeper.keep_connection(&format!("csi-{number}"), file.as_fd()).unwrap();
                keeper.keep_values(&format!("csi-{number}"), file.as_fd(), 3).unwrap();
            }
            kill_self()
        }
        // Of three that are kept the second has other values since, and the third is let go.
        "confirm-and-die" => {
            let file = tempfile::tempfile().unwrap();
            for volume in ["csi-1", "csi-2", "csi-3"] {
                keeper.keep_values(volume, file.as_fd(), 3).unwrap();
                keeper.confirm(volume, 4);
                keeper.confirm(volume, 5);
            }
            keeper.keep_values("csi-2", file.as_fd(), 6).unwrap();
            keeper.forget("csi-3").unwrap();
            keeper.alive().unwrap();
            kill_self()
        }
        // More than fits into the socket, while nobody reads; then a deposit that lost its file.
        "confirm-many-and-die" => {
            let file = tempfile::tempfile().unwrap();
            for number in 0..MANY {
                keeper.keep_values(&format!("csi-{number}"), file.as_fd(), 3).unwrap();
                keeper.confirm(&format!("csi-{number}"), 5);
            }
            let supervisor = rustix::process::getppid().unwrap();
            rustix::process::kill_process(supervisor, rustix::process::Signal::STOP).unwrap();
            keeper.alive().unwrap();
            rustix::process::kill_process(supervisor, rustix::process::Signal::CONT).unwrap();
            for _ in 0..MANY {
                keeper.alive().unwrap();
            }
            let without_a_file = [&[VALUES][..], &[0; 8], b"csi-0"].concat();
            rustix::net::send(std::io::stdin(), &without_a_file, SendFlags::empty()).unwrap();
            kill_self()
        }
        "confirmed" => {
            let confirmed = times.iter().filter(|at| **at == Some(5)).count();
            say(&format!("{confirmed} of {}", times.len()));
        }
        // What it would have said with its next sign of life is lost.
        "leave-anew-and-die" => {
            let file = tempfile::tempfile().unwrap();
            keeper.keep_values("csi-1", file.as_fd(), 7).unwrap();
            keeper.confirm("csi-1", 8);
            kill_self()
        }
        "die-restoring" => keeper.while_restoring("csi-1", || kill_self()).unwrap(),
        "restore-and-die" => {
            keeper.while_restoring("csi-1", || ()).unwrap();
            kill_self()
        }
        "tell" => say(&format!("{} {}", taken.instance.len(), kept.join(" "))),
        "give-up" => {
            wait_until_told_to_end();
            say(&format!("gives up {}", kept.join(" ")));
            std::process::exit(0)
        }
        "restarts" => say(&taken.restarts.to_string()),
        "count" => say(&kept.len().to_string()),
        "stacks" => say(&is_mapped(on_a_thread_that_ended()).to_string()),
        "hang" => {
            keeper.alive().unwrap();
            say("hangs");
        }
        "die" => kill_self(),
        "serve-and-die" => {
            keeper.alive().unwrap();
            kill_self()
        }
        "hopeless" => std::process::exit(HOPELESS.into()),
        "finish" => std::process::exit(0),
        other => panic!("{other}"),
    }
    wait_for_a_signal()
}
