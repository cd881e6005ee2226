//! The demo as a newcomer runs it. Needs the binaries beside it (`make build`) and the right to mount
//! (`tests/tools/with-mounts`).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sotto_dev::process::{Program, Running, Stream};

const DEADLINE: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Program {
    let mut demo = Program::new("sotto-dev", env!("CARGO_BIN_EXE_sotto-dev"))
        .arguments(["demo"])
        .arguments(arguments.iter().copied());
    // The demo hides its temporary files only where its executable isn't below them, as in a clone in /tmp.
    demo.environment.push(("TMPDIR".to_owned(), "/var/tmp".to_owned()));
    demo
}

/// Processes whose command line names the machine.
fn processes_of(machine: &str) -> Vec<String> {
    let names_it = |directory: &Path| {
        let line = std::fs::read(directory.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(machine).then(|| directory.display().to_string())
    };
    let directories = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    directories.filter_map(|directory| names_it(&directory)).collect()
}

fn assert_nothing_is_left(machine: &str) {
    assert_eq!(processes_of(machine), Vec::<String>::new());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(machine), "{mounts}");
    assert!(!Path::new(machine).exists());
}

/// The machine's directory, from where the volume is shown: `<machine>/mnt/secrets`.
fn machine_of(report: &Value) -> String {
    let shown = report["volume"]["shown_at"].as_str().unwrap();
    shown.strip_suffix("/mnt/secrets").unwrap().to_owned()
}

#[tokio::test]
async fn once_and_as_json_it_shows_everything_and_leaves_nothing() {
    let demo = Running::start(demo(&["--once", "--json"])).await.unwrap();
    let status = demo.wait(DEADLINE).await.unwrap();
    assert!(status.success(), "{}", demo.log().tail());
    let lines = demo.log().lines(Stream::Output);
    assert_eq!(lines.len(), 1, "one object on standard output");
    let report: Value = serde_json::from_str(&lines[0]).unwrap();

    assert_eq!(report["claims"]["sub"], "system:serviceaccount:payments:checkout");
    assert_eq!(report["store"]["tls"]["protocol"], "TLSv1_3");
    assert_eq!(report["store"]["tls"]["client"], "sotto-node");
    let files = report["seen"]["files"].as_array().unwrap();
    assert_eq!(files.len(), 4);
    assert!(
        files.iter().all(|file| file["content"].as_str().unwrap().to_lowercase().contains("fake"))
    );
    let live = &report["live"];
    assert_ne!(live["change"]["before"], live["change"]["after"]);
    let events = live["change"]["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event == "MOVED_TO ..data"), "{events:?}");
    for answer in ["opened", "read_on"] {
        let answer = live["withdrawal"][answer].as_str().unwrap();
        assert!(answer.contains("Permission denied"), "{answer}");
    }
    assert_eq!(live["withdrawal"]["healed"], live["change"]["after"]);
    let opens = |decision: &str| {
        let records = report["audit"].as_array().unwrap().iter();
        records.filter(|it| it["action"] == "open" && it["decision"] == decision).count()
    };
    // Four files, one anew, one kept open, one healed; and one that was refused.
    assert_eq!((opens("allowed"), opens("denied")), (7, 1));
    assert!(report["seen"]["write"].as_str().unwrap().contains("Read-only"));
    let intruder = &report["intruder"];
    assert!(intruder["error"].as_str().unwrap().contains("store main refuses payments/web"));
    assert_eq!(intruder["mounted"], false);
    assert!(report["milliseconds"].as_u64().unwrap() < 5_000, "under 5 s");
    assert_eq!(report["left_behind"], serde_json::json!([]));
    assert_nothing_is_left(&machine_of(&report));
}

#[tokio::test]
async fn in_sidecar_mode_it_ends_with_a_search_that_finds_the_canary_and_nothing_else() {
    let demo = Running::start(demo(&["--sidecar", "--once", "--json"])).await.unwrap();
    let status = demo.wait(DEADLINE).await.unwrap();
    assert!(status.success(), "{}", demo.log().tail());
    let lines = demo.log().lines(Stream::Output);
    let report: Value = serde_json::from_str(&lines.concat()).unwrap();
    assert_eq!(report["mode"], "sidecar");
    assert_eq!(report["claims"]["sub"], "system:serviceaccount:payments:checkout");
    let client = report["store"]["tls"]["client"].as_str().unwrap();
    assert!(client.starts_with("checkout-") && client.ends_with(".payments.pod"), "{client}");
    assert_eq!(report["seen"]["files"].as_array().unwrap().len(), 4);
    let live = &report["live"];
    assert_ne!(live["change"]["before"], live["change"]["after"]);
    assert!(live["withdrawal"]["opened"].as_str().unwrap().contains("Permission denied"));
    assert_eq!(live["withdrawal"]["healed"], live["change"]["after"]);
    let intruder = &report["intruder"];
    assert!(intruder["error"].as_str().unwrap().contains("store main refuses payments/web"));
    assert_eq!(intruder["mounted"], false);
    let tried = report["socket"].as_array().unwrap();
    assert!(!tried.is_empty() && tried.iter().all(|it| !it["reason"].as_str().unwrap().is_empty()));
    let searched = report["search"]["processes"].as_array().unwrap();
    assert_eq!(searched.len(), 3, "sotto-csi, sotto-node and its worker");
    for process in searched {
        assert_eq!((&process["token"], &process["secrets"]), (&0.into(), &0.into()), "{process}");
        assert!(process["canary"].as_u64().unwrap() > 0, "{process}");
    }
    // Each file has had two values.
    assert_eq!(report["search"]["values"], 8);
    assert_eq!(report["left_behind"], serde_json::json!([]));
    let shown = report["volume"]["shown_at"].as_str().unwrap();
    assert_nothing_is_left(shown.split("/pods/").next().unwrap());
}

#[tokio::test]
async fn it_stays_up_until_it_is_interrupted() {
    let demo = Running::start(demo(&["--json"])).await.unwrap();
    let report = demo.line("the report", DEADLINE, |line| line.starts_with('{')).await.unwrap();
    let machine = machine_of(&serde_json::from_str(&report).unwrap());
    assert_eq!(processes_of(&machine).len(), 3, "sotto-csi, sotto-node and its worker");
    demo.signal(rustix::process::Signal::INT);
    assert!(demo.wait(DEADLINE).await.unwrap().success(), "{}", demo.log().tail());
    assert_nothing_is_left(&machine);
}

#[tokio::test]
async fn killed_it_leaves_nothing_either() {
    let demo = Running::start(demo(&["--json"])).await.unwrap();
    let report = demo.line("the report", DEADLINE, |line| line.starts_with('{')).await.unwrap();
    let machine = machine_of(&serde_json::from_str(&report).unwrap());
    demo.kill().await.unwrap();
    let gone = async {
        // Nobody tells when the kernel has reaped another process's children, and who tidies up when.
        while !processes_of(&machine).is_empty() || Path::new(&machine).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    assert_nothing_is_left(&machine);
}
