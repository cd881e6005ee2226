//! Loading, reloading, and pairs that don't fit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn provide() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn written(directory: &Path, days: u32) -> Files {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir(directory).unwrap();
    make(&["localhost".to_owned()], days).unwrap().write(directory).unwrap();
    Files { certificate: directory.join("tls.crt"), key: directory.join("tls.key") }
}

#[test]
fn a_renewed_pair_is_served_and_half_of_one_is_not() {
    provide();
    let folder = tempfile::tempdir().unwrap();
    let files = written(&folder.path().join("a"), 1);
    let certificate = Certificate::load(files.clone()).unwrap();
    assert!(!certificate.reload(), "nothing changed");
    let other = written(&folder.path().join("b"), 1);
    fs::copy(&other.certificate, &files.certificate).unwrap();
    assert!(!certificate.reload(), "the key is still the old one");
    fs::remove_file(&files.key).unwrap();
    assert!(!certificate.reload(), "there is no key");
    fs::copy(&other.key, &files.key).unwrap();
    assert!(certificate.reload());
}

#[test]
fn a_certificate_is_checked_against_the_time() {
    provide();
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::load(written(&folder.path().join("a"), 2)).unwrap();
    let now = SystemTime::now();
    assert_eq!(certificate.check(now), Ok(()));
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    assert!(certificate.check(now + days(3)).unwrap_err().contains("expired"));
    assert!(certificate.check(now - days(1)).unwrap_err().contains("not valid yet"));
}

#[test]
fn a_pair_that_cannot_be_served_is_refused_with_the_file() {
    provide();
    let folder = tempfile::tempdir().unwrap();
    let files = written(&folder.path().join("a"), 1);
    let other = written(&folder.path().join("b"), 1);
    let refused = |certificate: &Path, key: &Path| {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        Certificate::load(files).unwrap_err().to_string()
    };
    assert!(refused(&files.certificate, &other.key).contains("fit together"));
    assert!(refused(&files.key, &files.key).contains("no certificate"));
    assert!(refused(&files.certificate, &files.certificate).contains("no private key"));
    assert!(refused(Path::new("/nowhere/tls.crt"), &files.key).contains("/nowhere/tls.crt"));
}

#[test]
fn a_key_is_for_its_owner_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let made = make(&["sotto-webhook.sotto-webhook.svc".to_owned()], 1).unwrap();
    made.write(folder.path()).unwrap();
    let mode = fs::metadata(folder.path().join("tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(made.write(folder.path()).unwrap_err().to_string().contains("ca.pem"));
    assert!(make(&["ä".to_owned()], 1).is_err());
}
