//! The server's configuration: mutual TLS 1.3, no disk, unsealed and initialised by itself.

use std::net::SocketAddr;
use std::path::Path;

/// HCL, one attribute a line (the server misreads several on one line).
pub(super) fn server(
    directory: &Path,
    storage: Option<&Path>,
    address: SocketAddr,
    admin_token: &str,
) -> String {
    let directory = directory.display();
    let storage = match storage {
        None => "storage \"inmem\" {}".to_owned(),
        Some(path) => durable(path, address),
    };
    format!(
        r#"{storage}
seal "static" {{
  current_key_id = "k1"
  current_key    = "file://{directory}/unseal.key"
}}
listener "tcp" {{
  address                            = "{address}"
  tls_cert_file                      = "{directory}/server.crt"
  tls_key_file                       = "{directory}/server.key"
  tls_client_ca_file                 = "{directory}/ca.pem"
  tls_require_and_verify_client_cert = true
  tls_min_version                    = "tls13"
}}
api_addr = "https://{address}"
initialize "boot" {{
  request "policy" {{
    operation = "update"
    path      = "sys/policies/acl/admin"
    data = {{
      policy = "path \"*\" {{ capabilities = [\"create\",\"read\",\"update\",\"patch\",\"delete\",\"list\",\"sudo\"] }}"
    }}
  }}
  request "token" {{
    operation = "update"
    path      = "auth/token/create"
    data = {{
      id        = "{admin_token}"
      policies  = ["admin"]
      no_parent = true
    }}
  }}
}}
"#
    )
}

/// One node's own log; its port for others is never used, and has to be named.
fn durable(path: &Path, address: SocketAddr) -> String {
    let path = path.display();
    format!(
        r#"storage "raft" {{
  path                   = "{path}"
  node_id                = "one"
  performance_multiplier = 1
}}
cluster_addr = "https://{}:{}""#,
        address.ip(),
        address.port() ^ 1
    )
}

/// Each pod reads below its own namespace and service account, by the login's metadata.
pub(super) fn pod_policy(accessors: &[&str]) -> String {
    accessors
        .iter()
        .map(|accessor| {
            let metadata =
                |key| format!("{{{{identity.entity.aliases.{accessor}.metadata.{key}}}}}");
            let (namespace, account) = match accessor.contains("kubernetes") {
                true => ("service_account_namespace", "service_account_name"),
                false => ("ns", "sa"),
            };
            let pod = format!("{}/{}", metadata(namespace), metadata(account));
            format!(
                "path \"secret/data/{pod}/*\" {{ capabilities = [\"read\"] }}\n\
                 path \"kv/{pod}/*\" {{ capabilities = [\"read\"] }}\n"
            )
        })
        .collect()
}
