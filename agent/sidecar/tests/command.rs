//! `sotto-agent exec`: what the command finds, and how it fails. The command is this very file, run again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// In the environment of the command that tells what it found.
const TELL: &str = "SOTTO_TEST_TELL";

#[expect(clippy::print_stdout, reason = "what the test reads")]
fn main() {
    if std::env::var_os(TELL).is_some() {
        return tell();
    }
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let tests: [(&str, fn()); 7] = [
        ("all_or_named_values_are_in_the_environment_and_nowhere_else", environment),
        ("the_command_takes_the_process_and_finds_it_as_it_was", as_it_was),
        ("values_are_waited_for_and_not_for_ever", waiting),
        ("a_reader_that_hangs_is_left_behind", hanging),
        ("values_that_no_variable_can_have_are_refused_by_name", refused),
        ("exit_codes_are_those_of_env", codes),
        ("all_values_are_of_one_generation", generation),
    ];
    for (name, test) in tests {
        if wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the test reads")]
fn tell() {
    let hidden = rustix::process::dumpable_behavior().unwrap();
    println!("dumpable={hidden:?} pid={} parent={:?}", std::process::id(), parent());
    println!("core={:?}", rustix::process::getrlimit(rustix::process::Resource::Core).maximum);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("NoNewPrivs")).unwrap());
    println!("arguments={:?}", std::env::args_os().skip(1).collect::<Vec<_>>());
    for (name, value) in std::env::vars_os() {
        println!("{}={value:?}", name.display());
    }
}

fn parent() -> Option<u32> {
    rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned())
}

/// A volume with these files.
fn volume(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value).unwrap();
    }
    folder
}

fn agent(from: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto-agent"));
    command.env_clear().env(TELL, "1").arg("exec").arg("--from").arg(from).args(options);
    command
}

fn run(from: &Path, options: &[&str], command: &[&OsStr]) -> Output {
    agent(from, options).arg("--").args(command).output().unwrap()
}

/// This file as the command, with these arguments.
fn told(from: &Path, options: &[&str]) -> String {
    let own = std::env::current_exe().unwrap();
    let output = run(from, options, &[own.as_os_str(), OsStr::new("an argument")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn environment() {
    let folder = volume(&[
        ("PASSWORD", b"two\n\n"),
        ("_x1", b""),
        ("db-password", b"\xff#"),
        (".hidden", b"canary"),
    ]);
    let text = told(folder.path(), &[]);
    for line in ["PASSWORD=\"two\\n\"", "_x1=\"\"", "arguments=[\"an argument\"]"] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
    assert!(!text.contains("canary") && !text.contains('#'), "{text}");
    let text = told(folder.path(), &["--env", "DB=db-password", "--env=P=PASSWORD"]);
    assert!(text.contains("DB=\"\\xFF#\"") && text.contains("P=\"two\\n\""), "{text}");
    assert!(!text.contains("PASSWORD="), "{text}");
}

fn as_it_was() {
    let folder = volume(&[("A", b"a")]);
    let own = std::env::current_exe().unwrap();
    let child = agent(folder.path(), &[])
        .arg("--")
        .arg(own)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let here = std::process::id();
    let line = format!("dumpable=Dumpable pid={pid} parent=Some({here})");
    assert!(text.contains(&line), "{line}: {text}");
    let core = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    assert!(text.contains(&format!("core={core:?}")), "{text}");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(text.contains(own.lines().find(|it| it.starts_with("NoNewPrivs")).unwrap()), "{text}");
}

fn waiting() {
    let folder = volume(&[]);
    let late = folder.path().join("A");
    let writer = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(300));
        std::fs::write(late, "came").unwrap();
    });
    assert!(told(folder.path(), &["--env=A=A"]).contains("A=\"came\""));
    writer.join().unwrap();
    let begun = Instant::now();
    let output = run(folder.path(), &["--env=B=B", "--timeout=200ms"], &[OsStr::new("true")]);
    let (code, text) = failure(&output);
    assert_eq!(code, Some(125));
    assert!(text.contains("within 200ms") && text.contains("B can't be read"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn hanging() {
    let folder = volume(&[]);
    let pipe = folder.path().join("A");
    // A read that nobody answers.
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let output = run(folder.path(), &["--env=A=A", "--timeout=200ms"], &[OsStr::new("true")]);
    let (code, text) = failure(&output);
    assert_eq!(code, Some(125));
    assert!(text.contains("is the volume served?"), "{text}");
}

fn refused() {
    let long = vec![b'x'; 200 << 10];
    let folder = volume(&[("NUL", b"can\0ary"), ("LONG", &long)]);
    for (name, words) in [("NUL", "NUL has a NUL byte"), ("LONG", "LONG is too long")] {
        let option = format!("--env=A={name}");
        let (code, text) = failure(&run(folder.path(), &[&option], &[OsStr::new("true")]));
        assert_eq!(code, Some(125));
        assert!(text.contains(words) && !text.contains("can\0") && !text.contains("xxx"), "{text}");
    }
    let folder = volume(&[("db-password", b"x")]);
    let (code, text) = failure(&run(folder.path(), &[], &[OsStr::new("true")]));
    assert_eq!(code, Some(125));
    assert!(text.contains("--env NAME=file"), "{text}");
}

fn codes() {
    let folder = volume(&[("A", b"a")]);
    let code = |command: &OsStr| failure(&run(folder.path(), &[], &[command]));
    assert_eq!(code(OsStr::new("/no/such")).0, Some(127));
    assert_eq!(code(folder.path().join("A").as_os_str()).0, Some(126));
    assert_eq!(failure(&run(folder.path(), &["--env=A"], &[OsStr::new("true")])).0, Some(125));
    let (status, text) = failure(&run(folder.path(), &[], &[OsStr::from_bytes(b"/no/\xff")]));
    assert_eq!(status, Some(127), "{text}");
    let exit =
        run(folder.path(), &[], &[OsStr::new("/bin/sh"), OsStr::new("-c"), OsStr::new("exit 7")]);
    assert_eq!(exit.status.code(), Some(7));
}

fn generation() {
    let folder = volume(&[]);
    let old = folder.path().join("..1");
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("A"), "old").unwrap();
    symlink("..1", folder.path().join("..data")).unwrap();
    // What a class brought before: it is no part of the generation.
    std::fs::write(folder.path().join("B"), "stray").unwrap();
    let text = told(folder.path(), &[]);
    assert!(text.contains("A=\"old\"") && !text.contains("stray"), "{text}");
}
