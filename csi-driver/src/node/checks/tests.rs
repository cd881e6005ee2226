//! The table of validations: one change each to a request of a real kubelet, and what it gives.

use super::*;
use crate::cli::Cli;
use crate::journal::Journal;
use crate::settings::Settings;
use crate::target::KubeletDir;
use clap::Parser;
use sotto_core::attributes::{POD_UID, SECRET_PROVIDER_CLASS};
use sotto_proto::csi::v1::volume_capability::{BlockVolume, MountVolume};

const TOKENS: &str = r#"{"bao":{"token":"t","expirationTimestamp":"2026-11-24T00:00:00Z"}}"#;

struct Bench {
    directory: tempfile::TempDir,
    driver: Driver,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let cli = Cli::try_parse_from(["sotto-csi", "--node-name", "node-1"]).unwrap();
    let settings = Settings::check(cli.serve.unwrap(), None).unwrap();
    let kubelet = KubeletDir::open(path).unwrap();
    let driver = Driver::new(settings, kubelet, Journal::open(path).unwrap());
    Bench { directory, driver }
}

impl Bench {
    fn target(&self, uid: &str) -> String {
        let volume = format!("pods/{uid}/volumes/kubernetes.io~csi/secrets/mount");
        self.directory.path().join(volume).to_str().unwrap().to_owned()
    }

    fn request(&self) -> NodePublishVolumeRequest {
        let context = [
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", "web-0"),
            ("csi.storage.k8s.io/pod.namespace", "payments"),
            ("csi.storage.k8s.io/pod.uid", "uid-1"),
            ("csi.storage.k8s.io/serviceAccount.name", "checkout"),
            (SERVICE_ACCOUNT_TOKENS, TOKENS),
            ("secretProviderClass", "payments-db"),
        ];
        NodePublishVolumeRequest {
            volume_id: "csi-1".to_owned(),
            target_path: self.target("uid-1"),
            volume_capability: Some(mount(MountVolume::default())),
            readonly: true,
            volume_context: context.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..NodePublishVolumeRequest::default()
        }
    }

    fn change(
        &self,
        change: impl FnOnce(&mut NodePublishVolumeRequest),
    ) -> Result<Publish, Invalid> {
        let mut request = self.request();
        change(&mut request);
        publish(request, &self.driver)
    }
}

fn mount(mount: MountVolume) -> VolumeCapability {
    VolumeCapability { access_mode: None, access_type: Some(AccessType::Mount(mount)) }
}

fn flags(flags: &[&str]) -> Option<VolumeCapability> {
    let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Some(mount(MountVolume { mount_flags, ..MountVolume::default() }))
}

fn group(group: &str) -> Option<VolumeCapability> {
    Some(mount(MountVolume { volume_mount_group: group.to_owned(), ..MountVolume::default() }))
}

#[test]
fn a_request_of_a_real_kubelet_passes() {
    let bench = bench();
    for readonly in [true, false] {
        let publish = bench.change(|request| request.readonly = readonly).unwrap();
        let content = publish.content.unwrap();
        assert_eq!(publish.id.as_str(), "csi-1");
        assert_eq!(content.spec.identity.node.as_str(), "node-1");
        assert_eq!(content.credentials.tokens.expose(), TOKENS.as_bytes());
        assert_eq!(content.spec.mount_group, None);
    }
}

#[test]
fn the_first_list_refuses_what_no_call_can_do_without() {
    type Change = fn(&mut NodePublishVolumeRequest);
    let table: [(&str, Change); 9] = [
        ("volume id is missing", |request| request.volume_id.clear()),
        ("volume id is not valid", |request| request.volume_id = "../x".to_owned()),
        ("volume id is not valid", |request| request.volume_id = "x".repeat(129)),
        ("target path is missing", |request| request.target_path.clear()),
        ("not beneath", |request| request.target_path = "/etc".to_owned()),
        ("target path is not", |request| request.target_path.push_str("/deeper")),
        ("volume capability is missing", |request| request.volume_capability = None),
        ("access type", |request| request.volume_capability = Some(VolumeCapability::default())),
        ("no block volumes", |request| {
            let access_type = Some(AccessType::Block(BlockVolume {}));
            request.volume_capability = Some(VolumeCapability { access_mode: None, access_type });
        }),
    ];
    let bench = bench();
    for (phrase, change) in table {
        let error = bench.change(change).err().expect(phrase);
        assert_eq!(error.code(), Code::InvalidArgument, "{phrase}");
        assert!(error.to_string().contains(phrase), "{error}");
    }
}

#[test]
fn the_second_list_refuses_a_first_mount_but_no_republish() {
    type Change = fn(&mut NodePublishVolumeRequest);
    let table: [(&str, Code, Change); 8] = [
        ("secretProviderClass is missing", Code::InvalidArgument, |request| {
            request.volume_context.remove(SECRET_PROVIDER_CLASS);
        }),
        ("\"vaultAddress\" is not known", Code::InvalidArgument, |request| {
            request.volume_context.insert("vaultAddress".to_owned(), "https://evil".to_owned());
        }),
        ("directory of pod uid-1, the volume is of pod uid-2", Code::InvalidArgument, |request| {
            request.volume_context.insert(POD_UID.to_owned(), "uid-2".to_owned());
        }),
        ("no service account token", Code::FailedPrecondition, |request| {
            request.volume_context.remove(SERVICE_ACCOUNT_TOKENS);
        }),
        ("at most 131072", Code::InvalidArgument, |request| {
            let large = "t".repeat(MAX_TOKENS_BYTES + 1);
            request.volume_context.insert(SERVICE_ACCOUNT_TOKENS.to_owned(), large);
        }),
        ("\"wheel\" is not a group id", Code::InvalidArgument, |request| {
            request.volume_capability = group("wheel");
        }),
        ("\"4294967295\" is not a group id", Code::InvalidArgument, |request| {
            request.volume_capability = group("4294967295");
        }),
        ("mount flag \"suid\"", Code::InvalidArgument, |request| {
            request.volume_capability = flags(&["suid"]);
        }),
    ];
    let bench = bench();
    for (phrase, code, change) in table {
        let publish = bench.change(change).expect(phrase);
        let error = publish.content.err().expect(phrase);
        assert_eq!(error.code(), code, "{phrase}");
        assert!(error.to_string().contains(phrase), "{error}");
    }
}

#[test]
fn tokens_are_taken_from_secrets_first_and_may_exceed_4_kib() {
    let bench = bench();
    let large = "t".repeat(20_000);
    let publish = bench
        .change(|request| {
            request.secrets.insert(SERVICE_ACCOUNT_TOKENS.to_owned(), large.clone());
            request.secrets.insert("other".to_owned(), "wiped".to_owned());
        })
        .unwrap();
    assert_eq!(publish.content.unwrap().credentials.tokens.expose(), large.as_bytes());
}

#[test]
fn an_error_never_carries_a_token() {
    let bench = bench();
    let publish = bench.change(|request| {
        request.volume_context.insert(SERVICE_ACCOUNT_TOKENS.to_owned(), "canary".to_owned());
        request.volume_context.insert("sotto.dev/x".to_owned(), "1".to_owned());
    });
    let error = publish.unwrap().content.err().unwrap();
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[test]
fn the_mount_group_and_the_selinux_context_are_read() {
    let mut bench = bench();
    bench.driver.settings.has_selinux = true;
    let grouped = bench.change(|request| request.volume_capability = group("2000")).unwrap();
    assert_eq!(grouped.content.unwrap().spec.mount_group, Some(2_000));
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let flag = format!("context=\"{label}\"");
    let labelled = bench.change(|request| request.volume_capability = flags(&[&flag])).unwrap();
    assert_eq!(labelled.content.unwrap().spec.selinux_context.as_deref(), Some(label));
}

#[test]
fn the_administrators_context_is_for_mounts_that_kubelet_names_none_for() {
    let mut bench = bench();
    bench.driver.settings.has_selinux = true;
    bench.driver.settings.selinux_context = Some("system_u:object_r:default_t:s0".to_owned());
    let context = |flag: &[&str]| {
        let labelled = bench.change(|request| request.volume_capability = flags(flag)).unwrap();
        labelled.content.unwrap().spec.selinux_context
    };
    assert_eq!(context(&[]).as_deref(), Some("system_u:object_r:default_t:s0"));
    assert_eq!(context(&["context=kubelets"]).as_deref(), Some("kubelets"));
}

#[test]
fn what_the_node_publish_secret_ref_holds_goes_along_and_no_further() {
    let bench = bench();
    let with = |bytes: usize| {
        bench.change(|request| {
            request.secrets.insert("clientSecret".to_owned(), "canary".repeat(bytes / 6));
        })
    };
    let content = with(6).unwrap().content.unwrap();
    assert_eq!(content.credentials.publish_secrets.expose(), br#"{"clientSecret":"canary"}"#);
    assert!(!format!("{:?}", content.credentials).contains("canary"));
    let error = with(MAX_PUBLISH_SECRETS_BYTES).unwrap().content.err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        error.to_string().contains("nodePublishSecretRef") && !error.to_string().contains("canary")
    );
    let without = bench.change(|_| {}).unwrap().content.unwrap();
    assert!(without.credentials.publish_secrets.is_empty());
}

#[test]
fn without_selinux_no_context_reaches_the_kernel() {
    let bench = bench();
    let labelled = bench.change(|request| request.volume_capability = flags(&["context=x"]));
    assert_eq!(labelled.unwrap().content.unwrap().spec.selinux_context, None);
}

#[test]
fn unpublish_and_stats_have_lists_of_their_own() {
    let bench = bench();
    let code = |id: &str, path: &str| {
        let request = NodeUnpublishVolumeRequest { volume_id: id.into(), target_path: path.into() };
        unpublish(&request, &bench.driver).err().map(|error| error.code())
    };
    assert_eq!(code("csi-1", &bench.target("uid-1")), None);
    assert_eq!(code("", &bench.target("uid-1")), Some(Code::InvalidArgument));
    assert_eq!(code("csi-1", ""), Some(Code::InvalidArgument));
    assert_eq!(code("csi-1", "/"), Some(Code::InvalidArgument));
    let code = |id: &str, path: &str| {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.into(),
            volume_path: path.into(),
            ..NodeGetVolumeStatsRequest::default()
        };
        stats(&request, &bench.driver).err().map(|error| error.code())
    };
    assert_eq!(code("", "some/path"), Some(Code::InvalidArgument));
    assert_eq!(code("csi-1", ""), Some(Code::InvalidArgument));
    assert_eq!(code("some-unique-id", "some/path"), Some(Code::NotFound));
}
