//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sotto_store::assigned::ClientFiles;

use crate::exec::Wanted;

/// The socket's name in the handoff volume.
const SOCKET: &str = "handoff.sock";

/// Serves the secrets of its own pod.
#[derive(Debug, Parser)]
#[command(name = "sotto-agent", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to serve with.
    #[command(flatten)]
    pub serve: ServeArguments,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Asks the driver whether this pod's volume is served; for exec probes. Exits with 1 if not.
    Probe(Handoff),
    /// Runs a command with values of a volume in its environment, and nowhere else. Waits until they can be read.
    ///
    /// A newline at the end of a value is removed, one and no more. Exits with 125 if the values can't be had, with
    /// 126 or 127 if the command can't be run or isn't found.
    Exec(ExecArguments),
}

/// Where the driver is.
#[derive(Debug, Clone, Args)]
pub struct Handoff {
    /// The handoff volume.
    #[arg(long, default_value = "/run/sotto")]
    pub handoff: PathBuf,
    /// Runs as uid 0, and believes a driver of its own uid. Never for production.
    #[arg(long)]
    pub development: bool,
}

/// What to serve with.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// Where the driver is.
    #[command(flatten)]
    pub handoff: Handoff,
    /// The pod's token, in a projected volume of this container.
    #[arg(long)]
    pub token: Option<PathBuf>,
    /// What is logged, e.g. info or sotto_volume=debug,info.
    #[arg(long, default_value = "info")]
    pub log: String,
    /// The pod's own client certificate, in PEM; read again when it changes.
    #[arg(long)]
    pub client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub client_key: Option<PathBuf>,
}

/// What to run, and with which values.
#[derive(Debug, Clone, Args)]
pub struct ExecArguments {
    /// Where the volume is mounted.
    #[arg(long)]
    pub from: PathBuf,
    /// `NAME=file`: the variable and the file beneath the volume whose value it gets. Without it every file
    /// directly in the volume whose name can be a variable's becomes one of that name.
    #[arg(long = "env", value_name = "NAME=FILE", value_parser = Wanted::parse)]
    pub env: Vec<Wanted>,
    /// How long to wait for the values.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// A command line that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The driver's socket.
    pub socket: PathBuf,
    /// The pod's token.
    pub token: PathBuf,
    /// The pod's own client certificate.
    pub client: Option<ClientFiles>,
}

/// All mistakes of a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl Handoff {
    /// The driver's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.handoff.join(SOCKET)
    }

    /// The uid that must be at the other end.
    #[must_use]
    pub fn driver_uid(&self) -> u32 {
        if self.development { rustix::process::geteuid().as_raw() } else { 0 }
    }
}

impl ServeArguments {
    /// Checks it; reads no file.
    ///
    /// # Errors
    /// All faults at once.
    pub fn check(&self) -> Result<Settings, Faults> {
        let mut faults = Vec::new();
        let mut absolute = |name: &str, path: &Path| {
            if !path.is_absolute() {
                faults.push(format!("--{name}: {} is not an absolute path", path.display()));
            }
        };
        absolute("handoff", &self.handoff.handoff);
        for (name, path) in [
            ("token", &self.token),
            ("client-certificate", &self.client_certificate),
            ("client-key", &self.client_key),
        ] {
            path.iter().for_each(|path| absolute(name, path));
        }
        let client = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                Some(ClientFiles { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let message =
                    "--client-certificate and --client-key are given together or not at all";
                faults.push(message.to_owned());
                None
            }
        };
        match &self.token {
            Some(token) if faults.is_empty() => {
                let socket = self.handoff.socket();
                Ok(Settings { socket, token: token.clone(), client })
            }
            Some(_) => Err(Faults(faults)),
            None => {
                faults.push("--token: missing: name the file with the pod's token".to_owned());
                Err(Faults(faults))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Arguments {
        Arguments::try_parse_from([&["sotto-agent"], line].concat()).unwrap()
    }

    #[test]
    fn the_command_line_that_the_webhook_writes_is_understood() {
        let arguments = parsed(&[
            "--handoff=/run/sotto",
            "--token=/var/run/secrets/kubernetes.io/serviceaccount/token",
            "--log=info",
            "--client-certificate=/etc/sotto/tls/tls.crt",
            "--client-key=/etc/sotto/tls/tls.key",
        ]);
        let settings = arguments.serve.check().unwrap();
        assert_eq!(settings.socket, Path::new("/run/sotto/handoff.sock"));
        assert_eq!(settings.client.unwrap().key, Path::new("/etc/sotto/tls/tls.key"));
        let Some(Command::Probe(probe)) = parsed(&["probe"]).command else { panic!("no probe") };
        assert_eq!(probe.socket(), Path::new("/run/sotto/handoff.sock"));
        assert_eq!(probe.driver_uid(), 0);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let arguments = parsed(&["--handoff=run", "--client-certificate=tls.crt"]);
        let Faults(faults) = arguments.serve.check().unwrap_err();
        let starts = ["--handoff: run", "--client-certificate: tls.crt", "--client-c", "--token"];
        assert_eq!(faults.len(), starts.len(), "{faults:?}");
        assert!(faults.iter().zip(starts).all(|(fault, start)| fault.starts_with(start)));
    }

    #[test]
    fn a_command_has_values_or_all_of_a_volume_and_stands_behind_two_dashes() {
        let line =
            ["exec", "--from=/mnt", "--env=A=a", "--env", "B=b/c", "--", "run", "--env", "x"];
        let Some(Command::Exec(exec)) = parsed(&line).command else { panic!("no command") };
        assert_eq!(exec.command, ["run", "--env", "x"]);
        assert_eq!((exec.env.len(), exec.timeout), (2, Duration::from_secs(60)));
        for bad in [
            &["exec", "--from=/mnt"][..],
            &["exec", "--from=/mnt", "run"],
            &["exec", "--from=/mnt", "--env=A", "--", "run"],
            &["exec", "--from=/mnt", "--timeout=soon", "--", "run"],
            &["exec", "--", "run"],
        ] {
            assert!(
                Arguments::try_parse_from([&["sotto-agent"], bad].concat()).is_err(),
                "{bad:?}"
            );
        }
    }
}
