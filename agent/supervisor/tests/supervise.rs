//! A supervisor and its workers as real processes: this binary again, with a part to play. A worker is told
//! what to do by a script, one word for each start.
//!
//! Without the usual harness: a supervisor has one thread, or another one would take its signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![expect(clippy::disallowed_methods, reason = "a part ends with the status that its test wants")]

#[path = "supervise/worker.rs"]
mod worker;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sotto_supervisor::{Pace, Program, supervise};
use worker::{MANY, is_mapped, on_a_thread_that_ended, worker_part};

const SCRIPT: &str = "SOTTO_TEST_SCRIPT";
const STARTS: &str = "SOTTO_TEST_STARTS";
const DEADLINE: Duration = Duration::from_secs(20);
const SUPERVISOR: &str = "play-the-supervisor";
const WORKER: &str = "play-the-worker";
const HOPELESS: u8 = 64;
/// In the environment of a supervisor whose workers give up nothing.
const LEAVES: &str = "SOTTO_TEST_LEAVES";
/// In the environment of a supervisor that goes at its usual pace.
const USUAL_PACE: &str = "SOTTO_TEST_USUAL_PACE";

struct Run {
    supervisor: Child,
    lines: mpsc::Receiver<String>,
    starts: tempfile::TempPath,
}

impl Run {
    /// Each word of the script is what one worker does, in their order; the last one goes on for all later.
    fn of(script: &str) -> Self {
        Self::with(script, &[])
    }

    fn with(script: &str, environment: &[(&str, &str)]) -> Self {
        let starts = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let mut supervisor = Command::new(std::env::current_exe().unwrap())
            .arg(SUPERVISOR)
            .env(SCRIPT, script)
            .env(STARTS, starts.as_os_str())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(supervisor.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { supervisor, lines, starts }
    }

    fn says(&self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.supervisor);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the supervisor does not end");
            std::thread::yield_now();
        }
    }

    fn starts(&self) -> usize {
        std::fs::read(&self.starts).unwrap().len()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn supervisor_part() {
    let last_workers = if std::env::var(LEAVES).is_ok() { 0 } else { 3 };
    let arguments = ["supervise", WORKER].map(OsString::from).to_vec();
    let program =
        Program { path: "/proc/self/exe".into(), arguments, hopeless: HOPELESS, last_workers };
    let quick = Pace {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        hung_after: Duration::from_secs(2),
        ..Pace::default()
    };
    let pace = if std::env::var(USUAL_PACE).is_ok() { Pace::default() } else { quick };
    std::process::exit(supervise(&program, pace).unwrap().into());
}

fn the_next_worker_has_what_the_last_one_kept() {
    let run = Run::of("keep-and-die tell");
    assert_eq!(run.says(), "32 csi-1=Some(\"fd\")/Some(\"new\")@3");
}

fn more_than_fits_into_the_socket_is_kept_too() {
    let run = Run::of("keep-many-and-die die count");
    assert_eq!(run.says(), "600");
}

fn when_values_were_found_to_be_good_is_kept_until_others_are_left() {
    let kept = "32 csi-1=None/Some(\"\")@5 csi-2=None/Some(\"\")@6";
    assert_eq!(Run::of("confirm-and-die tell").says(), kept);
    assert_eq!(Run::of("confirm-and-die die tell").says(), kept);
    let run = Run::of("confirm-and-die leave-anew-and-die tell");
    assert_eq!(run.says(), kept.replace("@5", "@7"));
}

fn what_does_not_fit_is_confirmed_later_and_a_deposit_without_its_file_takes_the_old_one_along() {
    let others = MANY - 1;
    assert_eq!(Run::of("confirm-many-and-die confirmed").says(), format!("{others} of {others}"));
}

fn a_volume_that_ends_its_worker_is_given_up_and_no_other() {
    let run = Run::of("keep-and-die die-restoring tell");
    assert_eq!(run.says(), "32 ");
    let run = Run::of("keep-and-die restore-and-die tell");
    assert_eq!(run.says(), "32 csi-1=Some(\"fd\")/Some(\"new\")@3");
}

fn a_hung_worker_is_replaced() {
    let run = Run::of("hang tell");
    assert_eq!(run.says(), "hangs");
    assert_eq!(run.says(), "32 ");
}

fn a_worker_that_dies_again_and_again_is_started_again_and_again() {
    let run = Run::of("die die die die die tell");
    run.says();
    assert_eq!(run.starts(), 6);
}

fn one_that_is_killed_after_it_served_is_replaced_within_50_ms_however_often() {
    const TIMES: u32 = 12;
    let script = format!("{}tell", "serve-and-die ".repeat(TIMES as usize));
    let begun = Instant::now();
    let run = Run::with(&script, &[(USUAL_PACE, "1")]);
    run.says();
    // As much again for a busy machine; with a pause that doubles it would be 15 s.
    let each = begun.elapsed() / TIMES;
    assert!(each < 2 * Duration::from_millis(50), "{each:?} each");
}

fn one_that_never_serves_is_started_ever_less_often() {
    let begun = Instant::now();
    let run = Run::with("die die die die die tell", &[(USUAL_PACE, "1")]);
    run.says();
    let least = Duration::from_millis(50 + 100 + 200 + 400);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

fn a_worker_keeps_no_stack_of_a_thread_that_ended() {
    assert_eq!(Run::of("stacks").says(), "false");
    assert!(is_mapped(on_a_thread_that_ended()), "it would not be detected");
}

fn a_worker_knows_how_many_there_were_before_it() {
    assert_eq!(Run::of("restarts").says(), "0");
    assert_eq!(Run::of("die serve-and-die die restarts").says(), "3");
}

fn a_hopeless_worker_ends_the_supervisor_with_its_status() {
    for (word, code) in [("hopeless", i32::from(HOPELESS)), ("finish", 0)] {
        let mut run = Run::of(word);
        assert_eq!(run.end().code(), Some(code));
    }
}

fn a_signal_to_end_reaches_the_worker_and_none_is_started_after_it() {
    let mut run = Run::of("tell");
    run.says();
    run.signal(rustix::process::Signal::TERM);
    // The worker has no handler, and dies of it.
    assert_eq!(run.end().code(), Some(1));
}

/// In the pause before the next worker, which is half a second by then; or while the worker before it dies.
fn a_signal_between_two_workers_is_for_a_last_one_that_gives_up_what_is_kept() {
    let mut run = Run::with("keep-and-die die die die die give-up", &[(USUAL_PACE, "1")]);
    let end = Instant::now() + DEADLINE;
    while run.starts() < 5 {
        assert!(Instant::now() < end, "{} workers", run.starts());
        std::thread::yield_now();
    }
    run.signal(rustix::process::Signal::TERM);
    assert_eq!(run.says(), "gives up csi-1=Some(\"fd\")/Some(\"new\")@3");
    assert_eq!((run.end().code(), run.starts()), (Some(0), 6));
}

fn a_worker_that_dies_of_something_else_when_it_is_told_to_end_is_followed_by_a_last_one() {
    let mut run = Run::of("keep-and-die tell give-up");
    run.says();
    // This worker has no handler, and dies of it.
    run.signal(rustix::process::Signal::TERM);
    assert_eq!(run.says(), "gives up csi-1=Some(\"fd\")/Some(\"new\")@3");
    assert_eq!(run.end().code(), Some(0));
}

fn last_workers_that_die_too_are_not_followed_for_ever() {
    let mut run = Run::of("keep-and-die tell die");
    run.says();
    run.signal(rustix::process::Signal::TERM);
    assert_eq!((run.end().code(), run.starts()), (Some(1), 5));
    // One that leaves what is kept to another agent starts none.
    let mut run = Run::with("keep-and-die tell die", &[(LEAVES, "1")]);
    run.says();
    run.signal(rustix::process::Signal::TERM);
    assert_eq!((run.end().code(), run.starts()), (Some(1), 2));
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(SUPERVISOR) => supervisor_part(),
        Some(WORKER) => worker_part(),
        _ => run_all(),
    }
}

#[expect(
    clippy::print_stdout,
    reason = "in the words of the usual harness, for whoever adds them up"
)]
fn run_all() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let tests: [(&str, fn()); 16] = [
        (
            stringify!(the_next_worker_has_what_the_last_one_kept),
            the_next_worker_has_what_the_last_one_kept,
        ),
        (
            stringify!(more_than_fits_into_the_socket_is_kept_too),
            more_than_fits_into_the_socket_is_kept_too,
        ),
        (
            stringify!(when_values_were_found_to_be_good_is_kept_until_others_are_left),
            when_values_were_found_to_be_good_is_kept_until_others_are_left,
        ),
        (
            stringify!(what_does_not_fit_is_confirmed_later_and_a_deposit_without_its_file_takes_the_old_one_along),
            what_does_not_fit_is_confirmed_later_and_a_deposit_without_its_file_takes_the_old_one_along,
        ),
        (
            stringify!(a_volume_that_ends_its_worker_is_given_up_and_no_other),
            a_volume_that_ends_its_worker_is_given_up_and_no_other,
        ),
        (stringify!(a_hung_worker_is_replaced), a_hung_worker_is_replaced),
        (
            stringify!(a_worker_that_dies_again_and_again_is_started_again_and_again),
            a_worker_that_dies_again_and_again_is_started_again_and_again,
        ),
        (
            stringify!(one_that_is_killed_after_it_served_is_replaced_within_50_ms_however_often),
            one_that_is_killed_after_it_served_is_replaced_within_50_ms_however_often,
        ),
        (
            stringify!(one_that_never_serves_is_started_ever_less_often),
            one_that_never_serves_is_started_ever_less_often,
        ),
        (
            stringify!(a_worker_knows_how_many_there_were_before_it),
            a_worker_knows_how_many_there_were_before_it,
        ),
        (
            stringify!(a_worker_keeps_no_stack_of_a_thread_that_ended),
            a_worker_keeps_no_stack_of_a_thread_that_ended,
        ),
        (
            stringify!(a_hopeless_worker_ends_the_supervisor_with_its_status),
            a_hopeless_worker_ends_the_supervisor_with_its_status,
        ),
        (
            stringify!(a_signal_to_end_reaches_the_worker_and_none_is_started_after_it),
            a_signal_to_end_reaches_the_worker_and_none_is_started_after_it,
        ),
        (
            stringify!(a_signal_between_two_workers_is_for_a_last_one_that_gives_up_what_is_kept),
            a_signal_between_two_workers_is_for_a_last_one_that_gives_up_what_is_kept,
        ),
        (
            stringify!(a_worker_that_dies_of_something_else_when_it_is_told_to_end_is_followed_by_a_last_one),
            a_worker_that_dies_of_something_else_when_it_is_told_to_end_is_followed_by_a_last_one,
        ),
        (
            stringify!(last_workers_that_die_too_are_not_followed_for_ever),
            last_workers_that_die_too_are_not_followed_for_ever,
        ),
    ];
    let mut passed = 0;
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        if wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())) {
            test();
            println!("test {name} ... ok");
            passed += 1;
        }
    }
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
}
