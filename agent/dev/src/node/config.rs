//! sotto-node's configuration for a machine, and the files that it names.

use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::pki::write_file;
use crate::test_store::StoreAccess;

/// A store in the configuration.
#[derive(Debug, Clone)]
pub struct StoreEntry {
    /// Its name.
    pub name: String,
    /// `openbao` or `vault`.
    pub kind: String,
    /// Where it is; its files are copied to the machine.
    pub access: StoreAccess,
    /// `auth`.
    pub auth: Value,
    /// `allow`.
    pub allow: Value,
}

impl StoreEntry {
    /// The store `main`: an OpenBao with jwt logins at `jwt`, audience `bao`, for the namespace `payments`.
    #[must_use]
    pub fn main(access: &StoreAccess) -> Self {
        Self {
            name: "main".to_owned(),
            kind: "openbao".to_owned(),
            access: access.clone(),
            auth: json!({"method": "jwt", "mount": "jwt", "audience": "bao"}),
            allow: json!({"namespaces": ["payments"]}),
        }
    }

    /// Its entry, with the paths of the copies.
    fn value(&self, directory: &Path) -> Value {
        let file = |kind: &str| directory.join(format!("{}-{kind}", self.name));
        json!({
            "name": self.name, "kind": self.kind, "address": self.access.url(),
            "ca": file("ca.pem"), "clientCertificate": file("tls.crt"), "clientKey": file("tls.key"),
            "auth": self.auth, "allow": self.allow,
        })
    }

    fn copy_files(&self, directory: &Path, owner: Option<u32>) -> io::Result<()> {
        for (from, kind, mode) in [
            (&self.access.ca, "ca.pem", 0o644),
            (&self.access.client.certificate, "tls.crt", 0o644),
            (&self.access.client.key, "tls.key", 0o600),
        ] {
            let to = directory.join(format!("{}-{kind}", self.name));
            write_file(&to, &std::fs::read_to_string(from)?, mode)?;
            chown(&to, owner, owner)?;
        }
        Ok(())
    }
}

/// Where things are on the machine.
pub(super) struct Places {
    pub(super) etc: PathBuf,
    pub(super) classes: PathBuf,
    pub(super) socket: PathBuf,
}

/// The whole configuration; the first store is the default.
pub(super) fn value(places: &Places, stores: &[StoreEntry], issuer: &Issuer) -> Value {
    let entries: Vec<Value> = stores.iter().map(|store| store.value(&places.etc)).collect();
    json!({
        "stores": entries,
        "defaults": {"store": stores.first().map(|store| store.name.as_str())},
        "tokens": {
            "issuer": issuer.name(),
            "jwks": {"file": places.etc.join("jwks.json")},
            "leeway": "10s",
        },
        "classes": {"directory": places.classes},
        "audit": {"output": "stdout"},
        "driver": {"socket": places.socket, "uid": rustix::process::geteuid().as_raw()},
    })
}

/// Writes the configuration and the files that it names, for their owner.
pub(super) fn write(
    places: &Places,
    stores: &[StoreEntry],
    issuer: &Issuer,
    config: &Value,
    owner: Option<u32>,
) -> io::Result<PathBuf> {
    stores.iter().try_for_each(|store| store.copy_files(&places.etc, owner))?;
    issuer.write_jwks(&places.etc.join("jwks.json"))?;
    let file = places.etc.join("config.yaml");
    write_file(&file, &serde_saphyr::to_string(config).map_err(io::Error::other)?, 0o644)?;
    Ok(file)
}
