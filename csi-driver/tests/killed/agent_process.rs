//! A mini agent in a process of this binary, so that it can be stopped as a whole.

use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::agent::Agent;
use crate::behaviour::Behaviour;
use crate::driver_process::devices;
use crate::machine::eventually;

pub(crate) const ROLE: &str = "play-the-agent";

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [run_dir, instance] = arguments else { panic!("{arguments:?}") };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let agent = Agent::connected(run_dir.as_ref(), instance, Behaviour::default()).await;
        println!("connected");
        let until = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        until.await.unwrap().unwrap();
        agent.die().await;
    });
    ExitCode::SUCCESS
}

/// A running one; killed when dropped.
pub(crate) struct AgentProcess(Child);

impl AgentProcess {
    pub(crate) async fn connected(run_dir: &Path, instance: &str) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .arg(ROLE)
            .arg(run_dir)
            .arg(instance)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let line = tokio::task::spawn_blocking(|| output.lines().next()).await.unwrap();
        assert_eq!(line.unwrap().unwrap(), "connected");
        Self(child)
    }

    /// Stops all of its threads.
    pub(crate) async fn stop(&self) {
        self.signal(Signal::STOP);
        eventually("it is stopped", || self.state() == 'T').await;
    }

    /// Lets them go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn devices(&self) -> usize {
        devices(self.0.id())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
