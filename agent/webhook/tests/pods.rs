//! The manifests in `tests/pods`, each with what becomes of it in `tests/pods/expected`: manifests, or faults.
//!
//! `SOTTO_WRITE_EXPECTED=1 cargo test -p sotto-webhook --test pods` writes them anew, to be read before a commit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sotto_webhook::inject::inject;
use sotto_webhook::patch;
use sotto_webhook::render::render;
use sotto_webhook::settings::Settings;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods")
}

fn settings() -> Settings {
    let manifests = "../../deploy/components/injection/config.yaml";
    Settings::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(manifests)).unwrap()
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries.filter(|path| path.extension().is_some()).collect();
    cases.sort();
    assert!(cases.len() >= 10, "the manifests were not found");
    cases
}

fn documents(text: &str) -> Vec<Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).unwrap()
}

fn expect(name: &str, extension: &str, found: &str) {
    let file = folder().join("expected").join(name).with_extension(extension);
    if std::env::var_os("SOTTO_WRITE_EXPECTED").is_some() && std::env::var_os("CI").is_none() {
        fs::write(&file, found).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, expected, "{name} differs from {}", file.display());
}

#[test]
fn each_manifest_becomes_what_is_expected() {
    for case in cases() {
        let name = case.file_stem().unwrap().to_str().unwrap();
        match render(&fs::read_to_string(&case).unwrap(), &settings()) {
            Ok(manifests) => expect(name, "yaml", &manifests),
            Err(faults) => expect(name, "txt", &format!("{faults}\n")),
        }
    }
}

#[test]
fn what_was_injected_is_injected_unchanged() {
    let mut injected = 0;
    for case in cases() {
        if let Ok(once) = render(&fs::read_to_string(&case).unwrap(), &settings()) {
            assert_eq!(render(&once, &settings()).as_ref(), Ok(&once), "{}", case.display());
            injected += 1;
        }
    }
    assert!(injected >= 6, "{injected}");
}

#[test]
fn the_patch_means_to_others_what_it_means_to_us() {
    let mut patched = 0;
    for case in cases() {
        for pod in documents(&fs::read_to_string(&case).unwrap()) {
            let Ok(operations) = inject(&pod, &settings()) else { continue };
            let (mut ours, mut theirs) = (pod.clone(), pod);
            patch::apply(&mut ours, &operations).unwrap();
            let patch: json_patch::Patch =
                serde_json::from_value(patch::to_json(&operations)).unwrap();
            json_patch::patch(&mut theirs, &patch).unwrap();
            assert_eq!(ours, theirs, "{}", case.display());
            patched += usize::from(!operations.is_empty());
        }
    }
    assert!(patched >= 2, "{patched}");
}
