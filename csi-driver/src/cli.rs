//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Mounts volumes of secrets for kubelet and hands them to sotto-node.
#[derive(Debug, Parser)]
#[command(name = "sotto-csi", version, subcommand_negates_reqs = true)]
pub struct Cli {
    /// The driver's own arguments, where no subcommand is given.
    #[command(flatten)]
    pub serve: Option<Serve>,
    /// Another task than to be the driver.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Arguments of the driver.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Socket of the CSI services.
    #[arg(long, default_value = "unix:///csi/csi.sock")]
    pub endpoint: String,
    /// Directory in which kubelet looks for plugins; without it the driver isn't registered.
    #[arg(long)]
    pub registration_dir: Option<PathBuf>,
    /// Name of the CSIDriver object.
    #[arg(long, default_value = "csi.sotto.dev")]
    pub driver_name: String,
    /// Name of the CSIDriver object of pods with a sidecar; empty: there are none.
    #[arg(long, default_value = "sidecar.csi.sotto.dev")]
    pub sidecar_driver_name: String,
    /// Socket of its CSI services; sidecar.sock beside the other one by default.
    #[arg(long)]
    pub sidecar_endpoint: Option<String>,
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// kubelet's root directory, by the path that kubelet itself uses.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Directory of the journal and of the socket for sotto-node, on tmpfs.
    #[arg(long, default_value = "/run/sotto")]
    pub run_dir: PathBuf,
    /// User that sotto-node and sidecars run as; nobody else may connect.
    #[arg(long, default_value_t = 65532)]
    pub agent_uid: u32,
    /// Group that may connect to the socket for sotto-node.
    #[arg(long, default_value_t = 65532)]
    pub agent_gid: u32,
    /// Directories in which secrets-store providers have their sockets; the first that has one wins.
    #[arg(long, value_delimiter = ',', default_values = crate::providers::DIRECTORIES)]
    pub provider_dirs: Vec<PathBuf>,
    /// SELinux context of mounts for which kubelet names none, on nodes with SELinux.
    #[arg(long)]
    pub selinux_context: Option<String>,
    /// How long a volume may be without sotto-node before its readers get errors.
    #[arg(long, default_value = "30s")]
    pub request_deadline: String,
    /// On SIGTERM: how long a volume that no sotto-node serves is waited for.
    #[arg(long, default_value = "20s")]
    pub hand_over_deadline: String,
    /// What is logged, e.g. info or sotto_csi=debug,info.
    #[arg(long, default_value = "info")]
    pub log: String,
    /// Allows a run directory that is not on tmpfs.
    #[arg(long)]
    pub development: bool,
    /// Does as on a kernel before 6.9, for tests.
    #[arg(long, hide = true)]
    pub no_resend: bool,
}

/// Other tasks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Asks a running driver whether it is ready: exit status 0.
    Probe {
        /// Its socket.
        #[arg(long, default_value = "unix:///csi/csi.sock")]
        endpoint: String,
    },
    /// Tells whether a mount is dead; started by the driver itself.
    #[command(name = crate::mount_health::HELPER_COMMAND, hide = true)]
    MountHealth {
        /// The kubelet directory.
        kubelet_dir: PathBuf,
        /// The target, relative to it.
        target: PathBuf,
    },
    /// Makes the file-system operations of a rotation; started by the driver itself.
    #[command(name = crate::rotation::HELPER_COMMAND, hide = true)]
    RotationHelper {
        /// The kubelet directory.
        kubelet_dir: PathBuf,
        /// The target, relative to it. What to do comes on standard input, as JSON.
        target: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_needs_only_its_nodes_name() {
        let cli = Cli::try_parse_from(["sotto-csi", "--node-name", "node-1"]).unwrap();
        let serve = cli.serve.unwrap();
        assert_eq!((serve.agent_uid, serve.driver_name.as_str()), (65_532, "csi.sotto.dev"));
        assert!(!serve.development && serve.registration_dir.is_none());
    }

    #[test]
    fn a_probe_needs_nothing() {
        let cli = Cli::try_parse_from(["sotto-csi", "probe"]).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Probe { endpoint }) if endpoint.starts_with("unix:"))
        );
    }

    #[test]
    fn an_argument_that_is_not_known_is_refused() {
        assert!(Cli::try_parse_from(["sotto-csi", "--node-name", "n", "--insecure"]).is_err());
    }
}
