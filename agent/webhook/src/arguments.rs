//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Adds the sidecar to pods that ask for it.
#[derive(Debug, Parser)]
#[command(
    name = "sotto-webhook",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
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
    /// Injects manifests from standard input, and writes them to standard output.
    Render {
        /// The settings file: that of the cluster, so that the result is what its webhook would make.
        #[arg(long)]
        config: PathBuf,
    },
    /// Says what is wrong with a settings file, and starts nothing.
    Check {
        /// The settings file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Makes a CA and a serving certificate, for clusters without cert-manager.
    Certificate {
        /// A directory for ca.pem, tls.crt and tls.key, which must not exist there.
        #[arg(long)]
        out: PathBuf,
        /// The service's name, e.g. sotto-webhook.sotto-webhook.svc; may be repeated.
        #[arg(long, required = true)]
        dns: Vec<String>,
        /// How long it is valid.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Asks a running webhook how it is; for exec probes.
    Probe {
        /// The webhook's admin socket, an abstract name.
        #[arg(long, default_value = crate::admin::DEFAULT_NAME)]
        admin: String,
    },
}

/// What to serve with.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// The settings file.
    #[arg(long, required = true)]
    pub config: Option<PathBuf>,
    /// The serving certificate, PEM; reloaded when it changes.
    #[arg(long, required = true)]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM; reloaded when it changes.
    #[arg(long, required = true)]
    pub tls_key: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// What is logged, e.g. info or sotto_webhook=debug,info.
    #[arg(long, default_value = "info")]
    pub log: String,
    /// The admin socket that `probe` asks, an abstract name.
    #[arg(long, default_value = crate::admin::DEFAULT_NAME)]
    pub admin: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_the_manifests_is_understood() {
        let arguments = Arguments::try_parse_from([
            "sotto-webhook",
            "--config=/etc/sotto/config/config.yaml",
            "--tls-cert=/etc/sotto/tls/tls.crt",
            "--tls-key=/etc/sotto/tls/tls.key",
            "--log=info",
        ])
        .unwrap();
        assert!(arguments.command.is_none());
        assert_eq!(arguments.serve.listen.port(), 8443);
        assert!(Arguments::try_parse_from(["sotto-webhook", "probe"]).is_ok());
    }

    #[test]
    fn serving_needs_settings_and_a_certificate() {
        assert!(Arguments::try_parse_from(["sotto-webhook", "--config=x"]).is_err());
        assert!(Arguments::try_parse_from(["sotto-webhook", "certificate", "--out=x"]).is_err());
    }
}
