//! A driver as a child process: started by path, its log in a file, ended by id.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{Machine, eventually};

/// A running driver; killed when dropped.
pub(crate) struct DriverProcess {
    child: Child,
}

impl DriverProcess {
    /// Starts the driver of `machine` and waits until it answers.
    pub(crate) async fn started(machine: &Machine) -> Self {
        Self::started_with(machine, &[]).await
    }

    /// The same, with more arguments.
    pub(crate) async fn started_with(machine: &Machine, more: &[&str]) -> Self {
        let mut process = Self::spawned(machine, &[&["--log=trace"], more].concat());
        let registered = "kubelet/plugins_registry/csi.sotto.dev-reg.sock";
        let socket = machine.path(registered);
        eventually("the driver starts", || {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", log(machine));
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
        .await;
        process
    }

    /// Starts it with more arguments and doesn't wait.
    pub(crate) fn spawned(machine: &Machine, more: &[&str]) -> Self {
        let log = File::options().create(true).append(true).open(machine.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sotto-csi"))
            .args(machine.command_line())
            .args(more)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// How many FUSE devices it has open.
    pub(crate) fn devices(&self) -> usize {
        devices(self.id())
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to leave.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
    }
}

impl Drop for DriverProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many FUSE devices a process has open.
pub(crate) fn devices(process: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    targets.filter(|target| target == Path::new("/dev/fuse")).count()
}

/// Everything the machine's drivers have logged.
pub(crate) fn log(machine: &Machine) -> String {
    std::fs::read_to_string(machine.path("log")).unwrap()
}
