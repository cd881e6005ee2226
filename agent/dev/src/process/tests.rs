use super::*;

const LONG: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Program {
    Program::new("sh", "/bin/sh").arguments(["-c", script])
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn lines_are_awaited_and_told_apart_by_stream() {
    let child = Running::start(shell("echo out; echo err >&2; exec sleep 60")).await.unwrap();
    child.line("both lines", LONG, |line| line == "err").await.unwrap();
    child.line("both lines", LONG, |line| line == "out").await.unwrap();
    assert_eq!(child.log().lines(Stream::Error), ["err"]);
    assert!(child.end().await.unwrap().code().is_none(), "ended by a signal");
}

#[tokio::test]
async fn the_moment_of_its_exec_is_between_its_start_and_its_first_line() {
    let begun = Instant::now();
    let child = Running::start(shell("echo out; exec sleep 60")).await.unwrap();
    child.line("a line", LONG, |line| line == "out").await.unwrap();
    assert!(begun < child.executed() && child.executed() < Instant::now());
}

#[tokio::test]
async fn a_child_that_ends_early_is_reported_with_its_last_lines() {
    let child = Running::start(shell("echo went wrong; exit 7")).await.unwrap();
    let error = child.line("readiness", LONG, |line| line == "ready").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exit status: 7") && text.contains("before readiness"), "{text}");
    assert_eq!(child.wait(LONG).await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn the_last_lines_come_before_the_end() {
    for _ in 0..50 {
        let child = Running::start(shell("echo last")).await.unwrap();
        child.wait(LONG).await.unwrap();
        assert_eq!(child.log().lines(Stream::Output), ["last"]);
    }
}

#[tokio::test]
async fn a_condition_may_ask_the_log_again() {
    let child = Running::start(shell("echo one; echo two; exec sleep 60")).await.unwrap();
    let condition = |_: &str| child.log().lines(Stream::Output).len() == 2;
    child.line("both lines", LONG, condition).await.unwrap();
}

#[tokio::test]
async fn a_wait_has_a_deadline() {
    let child = Running::start(shell("exec sleep 60")).await.unwrap();
    let error = child.line("a line", Duration::from_millis(20), |_| true).await.unwrap_err();
    assert!(matches!(error, ProcessError::Deadline { .. }));
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed() {
    let child = Running::start(shell("trap '' TERM; echo ready; while :; do sleep 1; done"));
    let child = child.await.unwrap();
    child.line("ready", LONG, |line| line == "ready").await.unwrap();
    child.signal(Signal::TERM);
    assert!(child.wait(Duration::from_millis(100)).await.is_err());
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_dropped_child_is_killed_and_reaped() {
    let child = Running::start(shell("exec sleep 60")).await.unwrap();
    let (pid, mut exit) = (child.pid(), child.exit.clone());
    assert!(is_alive(pid));
    drop(child);
    tokio::time::timeout(LONG, exit.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let error = Running::start(Program::new("nothing", "/nonexistent")).await.err().unwrap();
    assert!(error.to_string().contains("nothing (/nonexistent)"));
}

#[tokio::test]
async fn a_child_may_become_another_user_where_root_may() {
    if !rustix::process::geteuid().is_root() || !crate::node::is_mapped(65532) {
        return;
    }
    let script = "id -u; id -G; grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status";
    let child = Running::start(shell(script).user(Some((65532, 65532)))).await.unwrap();
    child.wait(LONG).await.unwrap();
    let lines = child.log().lines(Stream::Output);
    assert_eq!(lines[..2], ["65532", "65532"]);
    assert_eq!(
        lines[2..],
        ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    );
}

/// Not a test by itself: the next one starts this executable with it, and kills it.
#[tokio::test]
#[ignore = "the owner in a_child_dies_with_its_owner"]
async fn an_owner_that_waits_to_be_killed() {
    use std::io::Write as _;
    let child = Running::start(shell("exec sleep 60")).await.unwrap();
    writeln!(io::stderr(), "child {}", child.pid()).unwrap();
    child.wait(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test]
async fn a_child_dies_with_its_owner() {
    let owner = Program::new("owner", std::env::current_exe().unwrap()).arguments([
        "--ignored",
        "--exact",
        "--nocapture",
        "process::tests::an_owner_that_waits_to_be_killed",
    ]);
    let owner = Running::start(owner).await.unwrap();
    let line = owner.line("its child", LONG, |line| line.contains("child ")).await.unwrap();
    let pid: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(is_alive(pid));
    owner.kill().await.unwrap();
    tokio::time::timeout(LONG, crate::wait::until(|| !is_alive(pid))).await.unwrap();
}
