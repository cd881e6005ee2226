//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Mode;

/// Serves the secrets of this node's pods.
#[derive(Debug, Parser)]
#[command(
    name = "sotto-node",
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
    /// Says what is wrong with a configuration, and starts nothing.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Accept what is only for development.
        #[arg(long)]
        development: bool,
    },
    /// Lets a running agent ask the stores again for a pod's volumes, now. Prints what came of each; exits
    /// with 1 unless all of them show what their stores have.
    Refresh {
        /// `<namespace>/<pod>`, a pod of this node.
        pod: String,
        /// The agent's admin socket, an abstract name.
        #[arg(long, default_value = crate::admin::DEFAULT_NAME)]
        admin: String,
    },
    /// Asks a running agent how it is; for exec probes.
    Probe {
        /// The agent's admin socket, an abstract name.
        #[arg(long, default_value = crate::admin::DEFAULT_NAME)]
        admin: String,
        /// Only whether it answers at all, not whether it is ready.
        #[arg(long)]
        live: bool,
    },
}

/// What to serve with.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// The configuration file.
    #[arg(long, required = true)]
    pub config: Option<PathBuf>,
    /// The node's name, as in pods' spec.nodeName.
    #[arg(long, env = "NODE_NAME", required = true)]
    pub node_name: Option<String>,
    /// The name of the CSIDriver object, that of sotto-csi; before driver.name of the configuration.
    #[arg(long, env = "DRIVER_NAME")]
    pub driver_name: Option<String>,
    /// What is logged, e.g. info or sotto_volume=debug,info.
    #[arg(long, default_value = "info")]
    pub log: String,
    /// The admin socket that `probe` and `refresh` ask, an abstract name.
    #[arg(long, default_value = crate::admin::DEFAULT_NAME)]
    pub admin: String,
    /// Does without memfd_secret, as on a kernel that has none: to look at the fallback.
    #[arg(long, hide = true, requires = "development")]
    pub no_memfd_secret: bool,
    /// Runs as uid 0 and believes an issuer in .invalid. Never for production.
    #[arg(long)]
    pub development: bool,
}

impl ServeArguments {
    /// What is accepted.
    #[must_use]
    pub fn mode(&self) -> Mode {
        mode(self.development)
    }
}

/// What `--development` stands for.
#[must_use]
pub fn mode(development: bool) -> Mode {
    if development { Mode::Development } else { Mode::Production }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_the_manifests_is_understood() {
        let arguments = Arguments::try_parse_from([
            "sotto-node",
            "--config=/etc/sotto/config/config.yaml",
            "--node-name=node-1",
            "--log=info",
        ])
        .unwrap();
        assert!(arguments.command.is_none() && !arguments.serve.development);
        assert_eq!(arguments.serve.node_name.as_deref(), Some("node-1"));
        assert!(Arguments::try_parse_from(["sotto-node", "probe"]).is_ok());
        assert!(Arguments::try_parse_from(["sotto-node", "refresh", "a/b"]).is_ok());
        assert!(Arguments::try_parse_from(["sotto-node", "check", "--config", "x"]).is_ok());
    }

    #[test]
    fn weaker_memory_is_for_development_only() {
        let with = |more: &[&'static str]| {
            let line = ["sotto-node", "--config=x", "--node-name=n", "--no-memfd-secret"];
            Arguments::try_parse_from(line.iter().chain(more))
        };
        assert!(with(&[]).is_err());
        assert!(with(&["--development"]).unwrap().serve.no_memfd_secret);
    }

    #[test]
    fn serving_needs_a_configuration() {
        assert!(Arguments::try_parse_from(["sotto-node", "--node-name=node-1"]).is_err());
    }
}
