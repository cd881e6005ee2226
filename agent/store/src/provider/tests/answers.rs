//! Files, right and wrong.

use super::bench::*;
use crate::provider::{FileFault, ProviderError};
use sotto_core::names::ObjectPathError;

/// The fault of the second file.
async fn second_is(file: ProviderFile) -> (usize, String, FileFault) {
    let first = ProviderFile::new("first", "x", "1");
    match Bench::new().error(Behaviour::Files(vec![first, file])).await {
        ProviderError::File { index, name, fault, .. } => (index, name, fault),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn files_arrive_with_their_names_modes_and_versions() {
    let bench = Bench::new();
    let files = vec![
        ProviderFile { mode: 0o400, ..file("tls/key", "k", "v-1") },
        ProviderFile { mode: 0, ..file("db", "p", "v-2") },
    ];
    let _provider = bench.provider(Behaviour::Files(files));
    let fetch = bench.fetch().await;
    assert_eq!(table(&fetch), [("tls/key", "k", "v-1", Some(0o400)), ("db", "p", "v-2", None)]);
    assert!(fetch.leases.is_empty());
}

#[tokio::test]
async fn a_file_without_a_version_of_its_own_has_one_by_its_content() {
    let bench = Bench::new();
    let anonymous =
        |path: &str, content: &str| ProviderFile { version: None, ..file(path, content, "") };
    let provider = bench.provider(Behaviour::Files(vec![anonymous("a", "x"), anonymous("b", "y")]));
    let (session, plan) = bench.session().await;
    let fetch = session.fetch(&plan).await;
    let (a, b) = (table(&fetch)[0].2, table(&fetch)[1].2);
    assert!(a.len() == 32 && a != b, "{a} {b}");
    provider.behave(Behaviour::Files(vec![anonymous("a", "changed"), anonymous("b", "y")]));
    let second = session.fetch(&plan).await;
    assert!(table(&second)[0].2 != a && table(&second)[1].2 == b);
}

#[tokio::test]
async fn a_path_that_leaves_the_volume_fails_the_answer_and_is_named() {
    for (path, fault) in [
        ("../../etc/passwd", ObjectPathError::Dots),
        ("a/../b", ObjectPathError::Dots),
        ("/etc/passwd", ObjectPathError::Absolute),
        ("a//b", ObjectPathError::EmptyComponent),
        ("./a", ObjectPathError::Dots),
        ("", ObjectPathError::Empty),
        ("..data", ObjectPathError::Reserved),
    ] {
        let (index, name, found) = second_is(file(path, "x", "1")).await;
        assert_eq!((index, found), (1, FileFault::Path(fault)), "{path}");
        assert!(name == path || path.is_empty(), "{name}");
    }
    let long = "x".repeat(256);
    let (_, name, fault) = second_is(file(&long, "x", "1")).await;
    assert_eq!(fault, FileFault::Path(ObjectPathError::ComponentTooLong(256)));
    assert!(name.len() < 100, "{name}");
    let message = Bench::new().error(Behaviour::Files(vec![file("../x", "x", "1")])).await;
    assert_eq!(
        message.to_string(),
        "provider aws returns file 0 (../x), which can't be: the name has a \".\" or \"..\" component: write the path without it"
    );
}

#[tokio::test]
async fn two_files_of_one_name_and_bits_that_are_no_permission_are_refused() {
    assert_eq!(
        second_is(file("first", "y", "1")).await,
        (1, "first".to_owned(), FileFault::Duplicate { first: 0 })
    );
    for mode in [-1, 0o1000, 0o4755, 0o100_644, i32::MIN] {
        let wrong = ProviderFile { mode, ..file("x", "x", "1") };
        assert_eq!(second_is(wrong).await.2, FileFault::Mode(mode));
    }
}

#[tokio::test]
async fn the_volumes_limits_hold() {
    let mut bench = Bench::new();
    bench.limits.object_bytes = 4;
    bench.limits.volume_bytes = 6;
    bench.limits.objects = 2;
    let files = |contents: &[&str]| {
        let file = |(index, content): (usize, &&str)| file(&format!("f{index}"), content, "1");
        Behaviour::Files(contents.iter().enumerate().map(file).collect())
    };
    let provider = store_name();
    let error = bench.error(files(&["12345"])).await;
    assert!(
        matches!(
            &error,
            ProviderError::File { fault: FileFault::TooLarge { bytes: 5, limit: 4 }, .. }
        ),
        "{error}"
    );
    let error = bench.error(files(&["1234", "123"])).await;
    assert_eq!(error, ProviderError::VolumeTooLarge { provider: provider.clone(), limit: 6 });
    let error = bench.error(files(&["1", "2", "3"])).await;
    assert_eq!(error, ProviderError::TooManyFiles { provider, count: 3, limit: 2 });
    let _provider = bench.provider(files(&["1234", "12"]));
    assert_eq!(table(&bench.fetch().await).len(), 2);
}

#[tokio::test]
async fn an_answer_of_4_mib_and_more_is_too_large() {
    let mut bench = Bench::new();
    bench.limits.object_bytes = 8 << 20;
    let error = bench.error(Behaviour::Large(4 << 20)).await;
    assert_eq!(
        error.to_string(),
        "the answer of provider aws is larger than 4 MiB; ask for fewer or smaller objects in one class"
    );
    let _provider = bench.provider(Behaviour::Large((4 << 20) - 64));
    assert_eq!(table(&bench.fetch().await).len(), 1);
}

#[tokio::test]
async fn an_answer_without_versions_is_refused() {
    let error = Bench::new().error(Behaviour::WithoutVersions(vec![file("a", "x", "1")])).await;
    assert_eq!(error, ProviderError::NoVersions { provider: store_name() });
}

#[tokio::test]
async fn a_provider_that_writes_files_itself_is_told_apart_whether_it_succeeds_or_not() {
    let bench = Bench::new();
    for behaviour in [Behaviour::WithoutFiles, Behaviour::Writes(vec![file("a", "x", "1")])] {
        let error = bench.error(behaviour).await;
        assert_eq!(error, ProviderError::WritesFilesItself { provider: store_name() });
        let message = error.to_string();
        assert!(message.contains("provider aws writes files itself"), "{message}");
        assert!(message.contains("use a provider version"), "{message}");
    }
}

#[tokio::test]
async fn an_error_code_fails_the_answer_whatever_else_is_in_it() {
    let error = Bench::new().error(Behaviour::ErrorCode("ProviderInternalError".to_owned())).await;
    assert_eq!(
        error.to_string(),
        "provider aws failed with error code ProviderInternalError; its log says more"
    );
    let evil = format!("line\nbreak \u{1b}[31m {}", "x ".repeat(400));
    let message = Bench::new().error(Behaviour::ErrorCode(evil)).await.to_string();
    assert!(message.len() < 400 && message.is_ascii(), "{message}");
    assert!(!message.contains(['\n', '\u{1b}']), "{message}");
}
