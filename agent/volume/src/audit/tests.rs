use super::*;
use crate::token::testing::pod;
use serde_json::Value;
use sotto_core::clock::FixedClock;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex};

const SOON: Duration = Duration::from_secs(10);

/// Gives each line to the test; waits at a gate before it writes.
struct Output {
    lines: Sender<Value>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    waiting: bool,
    failing: bool,
}

impl Gate {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_until(&self, reached: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, SOON, |state| !reached(state)).unwrap();
        assert!(!waited.1.timed_out());
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.gate.state.lock().unwrap();
        while state.closed {
            state.waiting = true;
            self.gate.changed.notify_all();
            state = self.gate.changed.wait(state).unwrap();
        }
        if state.failing {
            return Err(io::Error::other("no space left on device"));
        }
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "whole lines only");
        let _ = self.lines.send(serde_json::from_slice(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log() -> (AuditLog, Receiver<Value>, Arc<Gate>) {
    let (lines, read) = channel();
    let gate = Arc::new(Gate::default());
    let output = Output { lines, gate: Arc::clone(&gate) };
    (AuditLog::start(output, Arc::new(FixedClock(1))).unwrap(), read, gate)
}

fn volume(log: &AuditLog) -> VolumeAudit {
    VolumeAudit::new(log.clone(), &VolumeId::parse("csi-1").unwrap(), &pod())
}

fn open(volume: &VolumeAudit, object: &str) {
    let opener = Opener { uid: 1000, gid: 1000, pid: 7 };
    volume.opened(&Arc::from(object), Generation::FIRST, opener, Decision::Allowed);
}

#[tokio::test]
async fn each_decision_is_one_line() {
    let (log, lines, _) = log();
    let mut volume = volume(&log);
    volume.decided(AuditAction::VerifyToken, Some("the pod's token expired".to_owned()));
    volume.set_store(&StoreName::parse("main").unwrap());
    volume.decided(AuditAction::Fetch, None);
    open(&volume, "db-password");
    assert!(log.flush(SOON).await);
    let lines: Vec<_> = lines.try_iter().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[0]["action"], &lines[0]["decision"]),
        (&"verify-token".into(), &"denied".into())
    );
    assert_eq!(lines[0]["reason"], "the pod's token expired");
    assert_eq!((&lines[1]["store"], &lines[1]["decision"]), (&"main".into(), &"allowed".into()));
    assert_eq!((&lines[2]["object"], &lines[2]["uid"]), (&"db-password".into(), &1000.into()));
    assert_eq!(lines[2]["time"], "1970-01-01T00:00:01.000Z");
}

#[tokio::test]
async fn a_full_queue_never_blocks_and_the_gap_is_told() {
    let (log, lines, gate) = log();
    gate.set(|state| state.closed = true);
    let volume = volume(&log);
    open(&volume, "first");
    gate.wait_until(|state| state.waiting);
    for n in 0..QUEUE + 7 {
        open(&volume, &n.to_string());
    }
    assert_eq!(log.lost(), 7);
    gate.set(|state| state.closed = false);
    assert!(log.flush(SOON).await);
    let lines: Vec<_> = lines.try_iter().collect();
    let told: Vec<_> = lines.iter().filter(|line| line["action"] == "lost").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["records"], 7);
    assert_eq!(lines.iter().filter(|line| line["action"] == "open").count(), QUEUE + 1);
    assert_eq!(log.lost(), 0);
    assert_eq!(log.pace.queued(), 0, "neither those that were written nor those that were lost");
}

#[tokio::test]
async fn records_that_could_not_be_written_are_counted_and_told_later() {
    let (log, lines, gate) = log();
    gate.set(|state| state.failing = true);
    let volume = volume(&log);
    open(&volume, "a");
    open(&volume, "b");
    assert!(log.flush(SOON).await);
    assert_eq!(log.lost(), 2);
    gate.set(|state| state.failing = false);
    open(&volume, "c");
    assert!(log.flush(SOON).await);
    let lines: Vec<_> = lines.try_iter().collect();
    assert_eq!((&lines[0]["records"], &lines[1]["object"]), (&2.into(), &"c".into()));
}

#[tokio::test]
async fn without_an_output_nobody_asks_for_opens_and_nothing_waits() {
    let (log, held_back) = AuditLog::held_back(Arc::new(FixedClock(1)));
    held_back.discard();
    let volume = volume(&log);
    assert!(!volume.is_interested());
    open(&volume, "a");
    volume.decided(AuditAction::Fetch, None);
    assert_eq!(volume.log.lost(), 0);
    assert!(volume.log.flush(Duration::ZERO).await);
}

#[tokio::test]
async fn a_flush_ends_by_its_deadline() {
    let (log, _lines, gate) = log();
    gate.set(|state| state.closed = true);
    open(&volume(&log), "a");
    assert!(!log.flush(Duration::from_millis(20)).await);
    gate.set(|state| state.closed = false);
}
