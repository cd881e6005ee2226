//! What is written is read again, whole or not at all, and holds no token.

use super::*;
use sotto_core::identity::{
    ClassName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, WorkloadIdentity,
};
use std::os::unix::fs::PermissionsExt;

fn entry(id: &str) -> Entry {
    let spec = VolumeSpec {
        identity: WorkloadIdentity {
            namespace: Namespace::parse("payments").unwrap(),
            pod_name: PodName::parse("web-0").unwrap(),
            pod_uid: PodUid::parse("uid-1").unwrap(),
            service_account: ServiceAccountName::parse("checkout").unwrap(),
            node: NodeName::parse("node-1").unwrap(),
        },
        class: ClassName::parse("payments-db").unwrap(),
        mount_group: Some(2_000),
        refresh_ms: Some(30_000),
        max_stale_ms: None,
        optional: false,
        mode: crate::volume::Mode::Node,
        own_users: false,
        selinux_context: None,
    };
    let init = Negotiated {
        major: 7,
        minor: 40,
        max_readahead: 131_072,
        flags: 1 << 39,
        max_write: 4_096,
    };
    let target = PathBuf::from("pods/uid-1/volumes/kubernetes.io~csi/secrets/mount");
    Entry::new(VolumeId::parse(id).unwrap(), target, spec, init)
}

#[test]
fn an_entry_survives_a_restart() {
    let run_dir = tempfile::tempdir().unwrap();
    Journal::open(run_dir.path()).unwrap().record(&entry("csi-1")).unwrap();
    let journal = Journal::open(run_dir.path()).unwrap();
    assert_eq!(journal.load().unwrap(), [entry("csi-1")]);
    assert_eq!(journal.load().unwrap()[0].init(), entry("csi-1").init());
    for _ in 0..2 {
        journal.forget(&entry("csi-1").volume_id).unwrap();
    }
    assert_eq!(journal.load().unwrap(), []);
}

#[test]
fn an_entry_is_replaced_not_doubled() {
    let run_dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(run_dir.path()).unwrap();
    let mut changed = entry("csi-1");
    journal.record(&changed).unwrap();
    changed.spec.optional = true;
    journal.record(&changed).unwrap();
    assert_eq!(journal.load().unwrap(), [changed]);
}

#[test]
fn only_the_owner_can_read_the_journal() {
    let run_dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(run_dir.path()).unwrap();
    journal.record(&entry("csi-1")).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(run_dir.path().join("volumes")), 0o700);
    assert_eq!(mode(run_dir.path().join("volumes/csi-1.json")) & 0o077, 0);
}

#[test]
fn what_a_crash_left_half_written_is_removed_and_the_rest_is_read() {
    let run_dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(run_dir.path()).unwrap();
    journal.record(&entry("csi-1")).unwrap();
    let directory = run_dir.path().join("volumes");
    std::fs::write(directory.join(".new-csi-2.json"), "{\"version\":1").unwrap();
    std::fs::write(directory.join("csi-3.json"), "not json").unwrap();
    let whole = std::fs::read(directory.join("csi-1.json")).unwrap();
    std::fs::write(directory.join("csi-4.json"), whole).unwrap(); // of another volume
    std::os::unix::fs::symlink("csi-1.json", directory.join("csi-5.json")).unwrap();
    assert_eq!(journal.load().unwrap(), [entry("csi-1")]);
    let left: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["csi-1.json"]);
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let run_dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(run_dir.path()).unwrap();
    let mut later = serde_json::to_value(entry("csi-1")).unwrap();
    later["version"] = 2.into();
    later["color"] = "blue".into();
    std::fs::write(run_dir.path().join("volumes/csi-1.json"), later.to_string()).unwrap();
    assert_eq!(journal.load().unwrap().len(), 1);
}
