//! Shapes that pass, shapes that don't, and links on the way.

use super::*;
use std::os::unix::fs::symlink;

const TARGET: &str = "pods/uid-1/volumes/kubernetes.io~csi/secrets/mount";

fn kubelet() -> (tempfile::TempDir, KubeletDir) {
    let directory = tempfile::tempdir().unwrap();
    let kubelet = KubeletDir::open(directory.path()).unwrap();
    (directory, kubelet)
}

fn at(directory: &tempfile::TempDir, relative: &str) -> String {
    directory.path().join(relative).to_str().unwrap().to_owned()
}

#[test]
fn kubelets_path_is_accepted_and_names_the_pod() {
    let (directory, kubelet) = kubelet();
    let target = kubelet.target(&at(&directory, TARGET)).unwrap();
    assert_eq!(target.pod_uid().as_str(), "uid-1");
    assert_eq!(target.relative(), Path::new(TARGET));
    assert_eq!(kubelet.mount_point(&target), kubelet.path().join(TARGET));
}

#[test]
fn the_kubelet_directory_may_be_a_link_itself() {
    let (directory, _) = kubelet();
    let link = directory.path().join("link");
    std::fs::create_dir(directory.path().join("real")).unwrap();
    symlink("real", &link).unwrap();
    let kubelet = KubeletDir::open(&link).unwrap();
    let by_link = kubelet.target(link.join(TARGET).to_str().unwrap()).unwrap();
    let by_real = kubelet.target(&at(&directory, &format!("real/{TARGET}"))).unwrap();
    assert_eq!(by_link, by_real);
    assert!(kubelet.mount_point(&by_link).starts_with(kubelet.path()));
}

#[test]
fn every_other_shape_is_refused() {
    let (directory, kubelet) = kubelet();
    for other in [
        "",
        "pods",
        "pods/uid-1/volumes/kubernetes.io~csi/secrets",
        "pods/uid-1/volumes/kubernetes.io~csi/secrets/mount/deeper",
        "pods/uid-1/volumes/kubernetes.io~csi/secrets/data",
        "pods/uid-1/volumes/kubernetes.io~empty-dir/secrets/mount",
        "pods/uid-1/volumes/kubernetes.io~csi/../mount",
        "pods/../volumes/kubernetes.io~csi/secrets/mount",
        "pods/.x/volumes/kubernetes.io~csi/secrets/mount",
        "pods/uid-1/volumes/kubernetes.io~csi/.hidden/mount",
        "pods/uid-1/volumes/kubernetes.io~csi/a\u{e9}/mount",
        "pods/uid-1/../uid-2/volumes/kubernetes.io~csi/secrets/mount",
        "../etc/pods/uid-1/volumes/kubernetes.io~csi/secrets/mount",
        "plugins/uid-1/volumes/kubernetes.io~csi/secrets/mount",
    ] {
        let refused = kubelet.target(&at(&directory, other));
        assert_eq!(refused, Err(TargetError::Shape), "{other:?}");
    }
    for outside in ["", TARGET, "/etc", &format!("/var/lib/other/{TARGET}")] {
        let refused = kubelet.target(outside);
        assert!(matches!(refused, Err(TargetError::Outside(_))), "{outside:?}");
    }
}

#[test]
fn a_link_anywhere_on_the_way_is_refused() {
    for planted in ["pods", "pods/uid-1", "pods/uid-1/volumes/kubernetes.io~csi/secrets"] {
        let (directory, kubelet) = kubelet();
        let elsewhere = tempfile::tempdir().unwrap();
        let whole = elsewhere.path().join("x/x/x/x");
        std::fs::create_dir_all(whole).unwrap();
        let link = directory.path().join(planted);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(elsewhere.path(), link).unwrap();
        let target = TargetPath::from_relative(Path::new(TARGET)).unwrap();
        let error = kubelet.open_parent(&target).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()), "{planted}");
    }
}

#[test]
fn a_link_in_the_targets_place_is_refused_and_stays() {
    let (directory, kubelet) = kubelet();
    let target = TargetPath::from_relative(Path::new(TARGET)).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let place = directory.path().join(TARGET);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    symlink(elsewhere.path(), &place).unwrap();
    let parent = kubelet.open_parent(&target).unwrap();
    assert!(parent.make_target().is_err());
    assert!(parent.remove_target().is_err());
    assert!(place.is_symlink() && elsewhere.path().is_dir());
}

#[test]
fn a_target_is_made_and_removed_any_number_of_times() {
    let (directory, kubelet) = kubelet();
    let target = TargetPath::from_relative(Path::new(TARGET)).unwrap();
    let place = directory.path().join(TARGET);
    assert!(is_gone(&kubelet.open_parent(&target).unwrap_err()));
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    let parent = kubelet.open_parent(&target).unwrap();
    for _ in 0..2 {
        parent.make_target().unwrap();
    }
    assert!(place.is_dir());
    for _ in 0..2 {
        parent.remove_target().unwrap();
    }
    assert!(!place.exists());
}

#[test]
fn a_target_with_content_is_not_removed() {
    let (directory, kubelet) = kubelet();
    let target = TargetPath::from_relative(Path::new(TARGET)).unwrap();
    let file = directory.path().join(TARGET).join("precious");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "x").unwrap();
    assert!(kubelet.open_parent(&target).unwrap().remove_target().is_err());
    assert!(file.exists());
}
