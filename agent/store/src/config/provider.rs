//! A store of kind `provider`: a provider of the Secrets Store CSI driver, installed on the node.
//!
//! Invariant: its name is the name of one socket in a listed directory; no path can be made out of it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use sotto_core::identity::{Audience, StoreName};

use super::{AllowConfig, AllowList, AuthMethod, Fault, keep};

/// `kind` of such a store.
pub const PROVIDER_KIND: &str = "provider";
/// Where providers put their sockets; the first that has one wins.
const DIRECTORIES: [&str; 2] =
    ["/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"];
const MAX_NAME_BYTES: usize = 30;
/// Longest path of a socket, without the zero at its end.
const MAX_SOCKET_BYTES: usize = 107;

/// `stores[]` of kind `provider` as written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProviderConfig {
    /// The provider's name, as a class's `spec.provider` has it.
    pub name: String,
    /// The audience of the pods' tokens that it is given.
    pub audience: String,
    /// Where its socket is, instead of the two usual directories.
    pub directories: Option<Vec<PathBuf>>,
    /// Who may use it.
    pub allow: AllowConfig,
    /// Whoever chose this type has read it.
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    // Keys of the other kinds: known, so that a fault can say why they are not here.
    address: Option<IgnoredAny>,
    standbys: Option<IgnoredAny>,
    ca: Option<IgnoredAny>,
    server_name: Option<IgnoredAny>,
    client_certificate: Option<IgnoredAny>,
    client_key: Option<IgnoredAny>,
    namespace: Option<IgnoredAny>,
    auth: Option<IgnoredAny>,
}

/// One provider, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Its name.
    pub name: StoreName,
    /// The audience of the pods' tokens that it is given.
    pub audience: Audience,
    /// Where its socket is looked for, in this order; absolute.
    pub directories: Vec<PathBuf>,
    /// The administrator named none: the driver connects, where there is one.
    pub by_driver: bool,
    /// Who may use it.
    pub allow: AllowList,
}

impl ProviderConfig {
    /// Every mistake in it; paths are relative to this store. Reads no file.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        self.check().err().unwrap_or_default()
    }

    /// The checked settings. Reads no file.
    ///
    /// # Errors
    /// All faults at once.
    pub fn check(&self) -> Result<ProviderSettings, Vec<Fault>> {
        let mut faults = Vec::new();
        let name = keep("name", provider_name(&self.name), &mut faults);
        let audience = keep("audience", Audience::parse(self.audience.clone()), &mut faults);
        let directories = self.directories(&mut faults);
        self.refuse_foreign(&mut faults);
        let allow = AllowList::check(&self.allow, AuthMethod::Jwt, &mut faults);
        match (name, audience, faults.is_empty()) {
            (Some(name), Some(audience), true) => {
                let by_driver = self.directories.is_none();
                Ok(ProviderSettings { name, audience, directories, by_driver, allow })
            }
            _incomplete => Err(faults),
        }
    }

    fn directories(&self, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
        let Some(directories) = &self.directories else {
            return DIRECTORIES.map(PathBuf::from).into();
        };
        if directories.is_empty() {
            let message = "empty: list a directory, or leave the key out for the usual two";
            faults.push(Fault::new("directories", message));
        }
        for (index, directory) in directories.iter().enumerate() {
            let socket = directory.join(format!("{}.sock", self.name));
            let bytes = socket.as_os_str().len();
            let message = if !directory.is_absolute() {
                "not an absolute path".to_owned()
            } else if bytes > MAX_SOCKET_BYTES {
                format!(
                    "the path of the socket in it has {bytes} bytes: at most {MAX_SOCKET_BYTES}"
                )
            } else {
                continue;
            };
            faults.push(Fault::new(&format!("directories[{index}]"), message));
        }
        directories.clone()
    }

    fn refuse_foreign(&self, faults: &mut Vec<Fault>) {
        for (key, value) in [
            ("address", self.address),
            ("standbys", self.standbys),
            ("ca", self.ca),
            ("serverName", self.server_name),
            ("clientCertificate", self.client_certificate),
            ("clientKey", self.client_key),
            ("namespace", self.namespace),
        ] {
            if value.is_some() {
                let message =
                    "not with kind provider, which is reached by its socket on the node: remove it";
                faults.push(Fault::new(key, message));
            }
        }
        if self.auth.is_some() {
            let message = "not with kind provider, which logs in by itself: remove it, and write audience beside name";
            faults.push(Fault::new("auth", message));
        }
    }
}

impl ProviderSettings {
    /// The directories for a message.
    pub(crate) fn directories_in_words(&self) -> String {
        let directories = self.directories.iter().map(|directory| Path::display(directory));
        directories.map(|directory| directory.to_string()).collect::<Vec<_>>().join(" or ")
    }
}

/// Whether a class can name such a provider at all.
pub(crate) fn is_provider_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed)
}

fn provider_name(name: &str) -> Result<StoreName, String> {
    if !is_provider_name(name) {
        return Err(format!(
            "not a provider's name: write 1 to {MAX_NAME_BYTES} letters, digits, _ and -, as spec.provider of the classes has it"
        ));
    }
    StoreName::parse(name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EntrySettings, StoreConfig, StoreEntry};

    const GOOD: &str = "
name: aws
kind: provider
audience: sts.amazonaws.com
allow: { namespaces: [payments] }
";

    fn parse(text: &str) -> ProviderConfig {
        serde_saphyr::from_str(text).unwrap()
    }

    fn paths(text: &str) -> Vec<String> {
        parse(text).validate().into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn a_provider_needs_a_name_an_audience_and_who_may_use_it() {
        let settings = parse(GOOD).check().unwrap();
        assert_eq!(settings.audience.as_str(), "sts.amazonaws.com");
        assert!(settings.by_driver);
        assert_eq!(
            settings.directories,
            [
                Path::new("/etc/kubernetes/secrets-store-csi-providers"),
                Path::new("/var/run/secrets-store-csi-providers"),
            ]
        );
        for key in ["name:", "audience:", "allow:"] {
            let text: Vec<_> = GOOD.lines().filter(|line| !line.starts_with(key)).collect();
            assert!(serde_saphyr::from_str::<ProviderConfig>(&text.join("\n")).is_err(), "{key}");
        }
    }

    #[test]
    fn keys_of_the_other_kinds_are_faults_and_all_come_at_once() {
        let text = "
name: ../aws
kind: provider
audience: 'a b'
address: https://bao.example
standbys: [https://x]
ca: /ca.pem
serverName: x
clientCertificate: /tls.crt
clientKey: /tls.key
namespace: team-a
auth: { method: jwt, audience: bao }
directories: [providers, /run/ok]
allow: {}
";
        assert_eq!(
            paths(text),
            [
                "name",
                "audience",
                "directories[0]",
                "address",
                "standbys",
                "ca",
                "serverName",
                "clientCertificate",
                "clientKey",
                "namespace",
                "auth",
                "allow",
            ]
        );
    }

    #[test]
    fn a_name_is_one_that_a_socket_can_have() {
        let at = |name: &str| paths(&GOOD.replace("aws\n", &format!("{name}\n")));
        for name in ["a", "Conjur_2-b", &"x".repeat(30)] {
            assert_eq!(at(name), Vec::<String>::new(), "{name}");
        }
        for name in ["''", "a.b", "a/b", "..", "'a b'", "ä", &"x".repeat(31)] {
            assert_eq!(at(name), ["name"], "{name}");
        }
    }

    #[test]
    fn directories_are_absolute_and_short_enough_for_a_socket() {
        let at = |list: &str| paths(&format!("{GOOD}directories: {list}\n"));
        assert_eq!(at("[/run/providers]"), Vec::<String>::new());
        assert_eq!(at("[]"), ["directories"]);
        let long = format!("/{}", "x".repeat(97));
        assert_eq!(at(&format!("[/ok, {long}]")), Vec::<String>::new());
        assert_eq!(at(&format!("[/ok, {long}x]")), ["directories[1]"]);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_saphyr::from_str::<ProviderConfig>(&format!("{GOOD}insecure: true\n"));
        assert!(error.unwrap_err().to_string().contains("unknown field"));
    }

    #[test]
    fn a_provider_is_no_store_with_an_address() {
        let entry = StoreEntry::from(parse(GOOD));
        assert!(matches!(entry.check(), Ok(EntrySettings::Provider(_))));
        let error = serde_saphyr::from_str::<StoreConfig>(GOOD).unwrap_err().to_string();
        assert!(error.contains("kind provider has other keys"), "{error}");
    }
}
