//! Lines of real machines, and lines that are none.

use super::*;
use proptest::prelude::*;

const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 22 0:26 / /sys rw,nosuid,nodev,noexec,relatime shared:7 master:2 - sysfs sysfs rw
500 22 0:61 / /var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/s/mount ro,nosuid shared:9 - fuse.sotto sotto:csi-1 rw,user_id=0
501 22 0:61 /..1/password /var/lib/kubelet/pods/u-1/volume-subpaths/s/app/0 ro shared:9 - fuse.sotto sotto:csi-1 rw
502 22 0:70 / /mnt/with\\040space\\134and\\011tab rw - tmpfs tmpfs rw
503 22 0:71 /x//deleted /mnt/bind rw - ext4 /dev/vda rw
";

fn mounts(table: &str) -> Vec<Mount> {
    parse(table.as_bytes()).unwrap()
}

#[test]
fn a_real_table_is_read() {
    let mounts = mounts(TABLE);
    assert_eq!(mounts.len(), 6);
    assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].device.as_str()), (22, 1, "254:0"));
    assert_eq!(mounts[1].fs_type, "sysfs");
    assert_eq!(mounts[2].source_after("sotto:").unwrap(), "csi-1");
    assert_eq!(mounts[3].root, Path::new("/..1/password"));
    assert_eq!(mounts[4].mount_point, Path::new("/mnt/with space\\and\ttab"));
    assert_eq!(mounts[5].root, Path::new("/x//deleted"));
}

#[test]
fn of_stacked_mounts_the_topmost_is_seen() {
    let stacked = mounts(
        "40 22 0:1 / /a rw - tmpfs first rw\n\
         42 41 0:3 / /a rw - tmpfs third rw\n\
         41 40 0:2 / /a rw - tmpfs second rw\n",
    );
    assert_eq!(top_at(&stacked, Path::new("/a")).unwrap().source, "third");
    assert!(top_at(&stacked, Path::new("/a/b")).is_none());
}

#[test]
fn a_line_that_cannot_be_understood_is_an_error_not_a_missing_mount() {
    for broken in [
        "\n",
        "x 1 254:0 / / rw - ext4 /dev/vda rw\n",
        "22 1 254:0 / / rw shared:1 ext4 /dev/vda rw\n",
        "22 1 254:0 / / rw -\n",
        "22 1 254:0 / / rw - ext4 /dev/vda rw", // cut off
    ] {
        assert!(parse(broken.as_bytes()).is_err(), "{broken:?}");
    }
}

#[test]
fn this_machines_table_has_a_root() {
    assert!(top_at(&read().unwrap(), Path::new("/")).is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes[..]);
    }

    #[test]
    fn any_path_survives_the_kernels_escapes(name in "[ -~\t\n]{1,20}") {
        let escaped: String = name.chars().map(|c| match c {
            ' ' | '\t' | '\n' | '\\' | '#' => format!("\\{:03o}", c as u32),
            other => other.to_string(),
        }).collect();
        let table = format!("1 2 0:1 / /{escaped} rw - tmpfs none rw\n");
        prop_assert_eq!(&mounts(&table)[0].mount_point, &PathBuf::from(format!("/{name}")));
    }
}
