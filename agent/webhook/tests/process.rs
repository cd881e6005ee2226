//! The binary: its subcommands, what it exits with, its probe and its end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_sotto-webhook");
const SETTINGS: &str = "agent: { image: registry.example/agent:1 }\ntoken: { audience: bao }\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: { sotto.dev/inject: \"true\" }\n  \
                   annotations: { sotto.dev/secret-provider-class: db }\nspec: { containers: [{ name: app }] }\n";
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn settings(folder: &Path, text: &str) -> String {
    let file = folder.join("config.yaml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn render_writes_manifests_or_all_faults() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), SETTINGS);
    let done = run(&["render", "--config", &config], POD);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8(done.stdout).unwrap().contains("name: sotto-agent"));
    let hostile = POD.replace("class: db", "class: \"../x\", sotto.dev/image: evil");
    let done = run(&["render", "--config", &config], &hostile);
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(1), b"".as_slice()));
    let faults = String::from_utf8(done.stderr).unwrap();
    assert!(faults.contains("sotto.dev/image") && faults.contains("../x"), "{faults}");
}

#[test]
fn settings_with_faults_end_with_64_and_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "agent: { cpu: { request: much } }\nother: 1\n");
    for command in ["check", "render"] {
        let done = run(&[command, "--config", &config], POD);
        assert_eq!(done.status.code(), Some(64), "{command}");
        let faults = String::from_utf8(done.stderr).unwrap();
        for path in ["agent.image", "agent.cpu.request", "token.audience", "other"] {
            assert!(faults.contains(path), "{faults}");
        }
    }
    let config = settings(folder.path(), SETTINGS);
    assert!(run(&["check", "--config", &config], "").status.success());
    assert_eq!(run(&["nonsense"], "").status.code(), Some(64));
}

fn serve(folder: &Path, admin: &str) -> Child {
    let out = folder.to_str().unwrap();
    let made = run(&["certificate", "--out", out, "--dns", "localhost"], "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let config = settings(folder, SETTINGS);
    Command::new(BINARY)
        .args(["--config", &config, "--listen", "127.0.0.1:0", "--admin", admin])
        .args(["--tls-cert", &format!("{out}/tls.crt"), "--tls-key", &format!("{out}/tls.key")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_probe_hears_of_the_end_before_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let admin = format!("sotto-webhook-test-{}", std::process::id());
    let probe = || run(&["probe", "--admin", &admin], "");
    assert_eq!(probe().status.code(), Some(1), "nobody is there");
    let mut child = serve(folder.path(), &admin);
    until("it is ready", || probe().status.success()).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it says that it leaves", || {
        String::from_utf8(probe().stderr).unwrap().contains("shutting down")
    })
    .await;
    assert!(child.try_wait().unwrap().is_none(), "calls are still answered");
    until("it ends", || child.try_wait().unwrap().is_some()).await;
    assert!(child.wait().unwrap().success());
}
