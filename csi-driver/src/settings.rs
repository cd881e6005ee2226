//! What the administrator said, checked as a whole before anything is done.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sotto_core::identity::NodeName;

use crate::cli::Serve;

/// Longest name of a CSI driver.
const MAX_DRIVER_NAME: usize = 63;
const NAME_RULE: &str = "at most 63 letters, digits, hyphens and dots, between letters or digits";
/// The second driver's socket, beside the first one's.
const SIDECAR_SOCKET: &str = "sidecar.sock";
const SCHEME: &str = "unix://";
/// File descriptors that are not volumes: sockets, directories, the runtime's.
const RESERVED_FILES: u64 = 256;
/// The connection, the device that errors are answered on, and a sidecar's socket, its directory and its link.
const FILES_OF_A_VOLUME: u64 = 5;
/// Most volumes of a node, whatever its limits say.
const MOST_VOLUMES: u64 = 10_000;
/// Anything shorter would turn an agent's restart into errors.
const SHORTEST_REQUEST_DEADLINE: Duration = Duration::from_secs(1);
/// Nobody waits for a secret that long.
const LONGEST_REQUEST_DEADLINE: Duration = Duration::from_secs(24 * 3_600);
/// No grace period is longer.
const LONGEST_HAND_OVER: Duration = Duration::from_secs(3_600);
/// Well under the 60 s that the manifests give a start.
const RETURN_PATIENCE: Duration = Duration::from_secs(20);
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Twice this, and an agent counts as stopped: long after a busy one has answered.
const PING_DEADLINE: Duration = Duration::from_secs(10);

/// The settings of a driver.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the CSI socket.
    pub endpoint: PathBuf,
    /// kubelet's plugin directory.
    pub registration_dir: Option<PathBuf>,
    /// The CSI driver's name.
    pub driver_name: String,
    /// What pods with a sidecar use.
    pub sidecar: Option<SidecarDriver>,
    /// This node.
    pub node_name: NodeName,
    /// kubelet's root directory.
    pub kubelet_dir: PathBuf,
    /// Where driver and agents meet.
    pub run_dir: PathBuf,
    /// The agents' user.
    pub agent_uid: u32,
    /// The agents' group.
    pub agent_gid: u32,
    /// SELinux context where kubelet names none.
    pub selinux_context: Option<String>,
    /// Whether this node has SELinux.
    pub has_selinux: bool,
    /// Whether the run directory may be on a disk.
    pub development: bool,
    /// Most volumes at one time.
    pub max_volumes: usize,
    /// How long a publish waits for an agent to connect, e.g. while it is being replaced.
    pub agent_patience: Duration,
    /// How long a volume may be unserved before its readers get errors.
    pub request_deadline: Duration,
    /// Between an agent's answer to a ping and the next ping.
    pub ping_interval: Duration,
    /// How long an agent may take to answer one.
    pub ping_deadline: Duration,
    /// On SIGTERM: how long a volume without another holder is waited for.
    pub hand_over_deadline: Duration,
    /// How long the volumes of an earlier process may keep this one from being ready.
    pub return_patience: Duration,
    /// Where secrets-store providers have their sockets; absolute.
    pub provider_dirs: Vec<PathBuf>,
    /// False: as on a kernel before 6.9, whatever this one can.
    pub resend: bool,
}

/// The second CSI driver of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarDriver {
    /// Its name.
    pub name: String,
    /// Path of its CSI socket.
    pub endpoint: PathBuf,
}

/// Everything that is wrong with the arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl Settings {
    /// Checks the arguments. `open_files` is the process's limit, if it has one.
    ///
    /// # Errors
    /// All faults at once.
    pub fn check(serve: Serve, open_files: Option<u64>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let endpoint = endpoint_path(&serve.endpoint).unwrap_or_else(|fault| {
            faults.push(format!("--endpoint: {fault}"));
            PathBuf::new()
        });
        if !is_driver_name(&serve.driver_name) {
            faults.push(format!(
                "--driver-name: {:?} is not a CSI driver's name: {NAME_RULE}",
                serve.driver_name
            ));
        }
        let sidecar = sidecar_driver(&serve, &endpoint, &mut faults);
        let node_name = NodeName::parse(serve.node_name.clone());
        if let Err(error) = &node_name {
            faults.push(format!("--node-name: {error}"));
        }
        let times = Times::check(&serve, &mut faults);
        let directories = [
            ("--kubelet-dir", Some(&serve.kubelet_dir)),
            ("--run-dir", Some(&serve.run_dir)),
            ("--registration-dir", serve.registration_dir.as_ref()),
        ];
        let providers = serve.provider_dirs.iter().map(|path| ("--provider-dirs", Some(path)));
        for (argument, path) in directories.into_iter().chain(providers) {
            if path.is_some_and(|path| !path.is_absolute()) {
                faults.push(format!("{argument}: the path must be absolute"));
            }
        }
        match node_name {
            Ok(node_name) if faults.is_empty() => {
                Ok(Self::checked(serve, (endpoint, sidecar, node_name, times), open_files))
            }
            Ok(_) | Err(_) => Err(Faults(faults)),
        }
    }

    fn checked(
        serve: Serve,
        (endpoint, sidecar, node_name, times): (PathBuf, Option<SidecarDriver>, NodeName, Times),
        open_files: Option<u64>,
    ) -> Self {
        let files = open_files.unwrap_or(u64::MAX).saturating_sub(RESERVED_FILES);
        let volumes = (files / FILES_OF_A_VOLUME).min(MOST_VOLUMES);
        let max_volumes = usize::try_from(volumes).unwrap_or(usize::MAX);
        Self {
            endpoint,
            registration_dir: serve.registration_dir,
            driver_name: serve.driver_name,
            sidecar,
            node_name,
            kubelet_dir: serve.kubelet_dir,
            run_dir: serve.run_dir,
            agent_uid: serve.agent_uid,
            agent_gid: serve.agent_gid,
            selinux_context: serve.selinux_context,
            has_selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            development: serve.development,
            max_volumes,
            agent_patience: AGENT_PATIENCE,
            ping_interval: PING_INTERVAL,
            ping_deadline: PING_DEADLINE,
            request_deadline: times.request_deadline,
            hand_over_deadline: times.hand_over_deadline,
            return_patience: RETURN_PATIENCE,
            provider_dirs: serve.provider_dirs,
            resend: !serve.no_resend,
        }
    }
}

fn sidecar_driver(
    serve: &Serve,
    endpoint: &Path,
    faults: &mut Vec<String>,
) -> Option<SidecarDriver> {
    let name = serve.sidecar_driver_name.clone();
    if name.is_empty() {
        return None;
    }
    if !is_driver_name(&name) {
        faults.push(format!(
            "--sidecar-driver-name: {name:?} is not a CSI driver's name: {NAME_RULE}"
        ));
    } else if name == serve.driver_name {
        faults.push(format!(
            "--sidecar-driver-name: {name:?} is --driver-name too: kubelet sends tokens to one and none to the other"
        ));
    }
    let own = match &serve.sidecar_endpoint {
        None => endpoint.with_file_name(SIDECAR_SOCKET),
        Some(text) => endpoint_path(text).unwrap_or_else(|fault| {
            faults.push(format!("--sidecar-endpoint: {fault}"));
            PathBuf::new()
        }),
    };
    if own == endpoint && !endpoint.as_os_str().is_empty() {
        faults.push("--sidecar-endpoint: it is --endpoint too".to_owned());
    }
    Some(SidecarDriver { name, endpoint: own })
}

/// The path in `unix:///path` (or `unix:/path`).
///
/// # Errors
/// What is wrong with it.
pub fn endpoint_path(endpoint: &str) -> Result<PathBuf, &'static str> {
    let path = endpoint.strip_prefix(SCHEME).or_else(|| endpoint.strip_prefix("unix:"));
    let path = Path::new(path.ok_or("write unix:///path/to/csi.sock")?);
    if path.is_absolute() && path.file_name().is_some() {
        Ok(path.to_owned())
    } else {
        Err("the socket's path must be absolute, as in unix:///path/to/csi.sock")
    }
}

/// What the arguments say about time.
struct Times {
    request_deadline: Duration,
    hand_over_deadline: Duration,
}

impl Times {
    fn check(serve: &Serve, faults: &mut Vec<String>) -> Self {
        let mut within = |argument: &str, text: &str, least: Duration, most: Duration| {
            let said = humantime::parse_duration(text);
            if !said.as_ref().is_ok_and(|said| (least..=most).contains(said)) {
                let (least, most) =
                    (humantime::format_duration(least), humantime::format_duration(most));
                faults.push(format!(
                    "{argument}: {text:?} is not a duration such as 30s, between {least} and {most}"
                ));
            }
            said.unwrap_or_default()
        };
        let (least, most) = (SHORTEST_REQUEST_DEADLINE, LONGEST_REQUEST_DEADLINE);
        Self {
            request_deadline: within("--request-deadline", &serve.request_deadline, least, most),
            hand_over_deadline: within(
                "--hand-over-deadline",
                &serve.hand_over_deadline,
                Duration::ZERO,
                LONGEST_HAND_OVER,
            ),
        }
    }
}

fn is_driver_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    name.len() <= MAX_DRIVER_NAME
        && ends(bytes.first())
        && ends(bytes.last())
        && name.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn check(arguments: &[&str]) -> Result<Settings, Faults> {
        let all = ["sotto-csi", "--node-name", "node-1"].iter().chain(arguments);
        Settings::check(Cli::try_parse_from(all).unwrap().serve.unwrap(), Some(1_024))
    }

    #[test]
    fn the_defaults_are_valid() {
        let settings = check(&[]).unwrap();
        assert_eq!(settings.endpoint, Path::new("/csi/csi.sock"));
        assert_eq!(settings.max_volumes, 153);
        let sidecar = settings.sidecar.unwrap();
        assert_eq!(sidecar.name, "sidecar.csi.sotto.dev");
        assert_eq!(sidecar.endpoint, Path::new("/csi/sidecar.sock"));
        assert_eq!((settings.request_deadline, settings.resend), (Duration::from_secs(30), true));
    }

    #[test]
    fn a_request_deadline_that_a_restart_would_pass_is_refused() {
        let settings = check(&["--request-deadline=1m 30s", "--no-resend"]).unwrap();
        assert_eq!((settings.request_deadline, settings.resend), (Duration::from_secs(90), false));
        assert!(check(&["--request-deadline=999ms"]).is_err());
    }

    #[test]
    fn the_second_driver_is_another_one_or_none() {
        assert_eq!(check(&["--sidecar-driver-name="]).unwrap().sidecar, None);
        let same =
            ["--sidecar-driver-name=csi.sotto.dev", "--sidecar-endpoint=unix:///csi/csi.sock"];
        assert_eq!(check(&same).unwrap_err().0.len(), 2);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let long = "d".repeat(64);
        let faults = check(&[
            "--endpoint=tcp://0.0.0.0:1",
            "--driver-name",
            &long,
            "--kubelet-dir=kubelet",
            "--run-dir=run",
            "--registration-dir=here",
            "--request-deadline=soon",
            "--hand-over-deadline=2h",
        ])
        .unwrap_err();
        assert_eq!(faults.0.len(), 7, "{faults}");
    }

    #[test]
    fn names_of_drivers_are_those_that_csi_allows() {
        assert!(is_driver_name("secrets-store.csi.k8s.io"));
        for name in ["", "-a", "a.", "a/b", "a b", "../a"] {
            assert!(!is_driver_name(name), "{name:?}");
        }
    }
}
