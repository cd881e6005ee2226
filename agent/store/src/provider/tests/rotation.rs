//! The second request and those after it.

use std::collections::BTreeSet;

use super::bench::*;
use crate::plan::VolumePlan;
use crate::session::Fetch;

fn named(plan: VolumePlan, fetch: Fetch) -> VolumePlan {
    plan.naming(&fetch.objects.into_iter().flatten().collect::<Vec<_>>())
}

#[tokio::test]
async fn a_provider_is_told_the_versions_of_its_last_good_answer() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1"), file("b", "y", "2")]));
    let (session, plan) = bench.session().await;
    table(&session.fetch(&plan).await);
    provider.behave(Behaviour::Files(vec![file("../a", "z", "3")]));
    error(&session.fetch(&plan).await);
    provider.behave(Behaviour::Files(vec![file("a", "x", "1")]));
    table(&session.fetch(&plan).await);
    let versions: Vec<_> = provider.seen().into_iter().map(|seen| seen.versions).collect();
    let said = [("a", "1"), ("b", "2")].map(|(id, version)| (id.to_owned(), version.to_owned()));
    assert_eq!(versions, [[].into(), said.clone().into(), said.into()]);
}

#[tokio::test]
async fn a_provider_that_reads_the_reference_drivers_files_is_asked_without_versions() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::ReadsWhatIsCurrent(vec![file("a", "x", "1")]));
    let (session, plan) = bench.session().await;
    for _ in 0..3 {
        assert_eq!(table(&session.fetch(&plan).await)[0].1, "x");
    }
    let versions: Vec<_> = provider.seen().iter().map(|seen| seen.versions.len()).collect();
    assert_eq!(versions, [0, 1, 0, 0], "found out once, remembered from then on");
}

#[tokio::test]
async fn a_content_that_changed_never_keeps_its_version() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1")]));
    let (session, plan) = bench.session().await;
    assert_eq!(table(&session.fetch(&plan).await)[0].2, "1");
    assert_eq!(table(&session.fetch(&plan).await)[0].2, "1");
    provider.behave(Behaviour::Files(vec![file("a", "changed", "1")]));
    let changed = session.fetch(&plan).await;
    let version = table(&changed)[0].2;
    assert!(version.starts_with("1@") && version.len() == 34, "{version}");
    assert_eq!(table(&session.fetch(&plan).await)[0].2, version, "and is the same from then on");
}

#[tokio::test]
async fn files_have_their_places_once_a_first_answer_has_named_them() {
    let bench = Bench::new();
    let provider = bench.provider(Behaviour::Files(vec![file("a", "x", "1"), file("b", "y", "1")]));
    let (session, plan) = bench.session().await;
    assert!(plan.objects.is_empty());
    let first = session.fetch(&plan).await;
    let plan = named(plan, first);
    let paths: Vec<_> = plan.objects.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(paths, ["a", "b"]);
    assert!(plan.is_read(0) && plan.is_read(1));

    provider.behave(Behaviour::Files(vec![file("b", "y2", "2"), file("a", "x2", "2")]));
    let second = session.fetch(&plan).await;
    assert_eq!(table(&second).iter().map(|row| row.1).collect::<Vec<_>>(), ["x2", "y2"]);
    let only = session.fetch(&plan.only(&BTreeSet::from([1]))).await;
    assert_eq!(table(&only).iter().map(|row| row.1).collect::<Vec<_>>(), ["y2"]);

    provider.behave(Behaviour::Files(vec![file("b", "y3", "3"), file("c", "new", "1")]));
    let third = session.fetch(&plan).await;
    let gone = third.objects[0].as_ref().err().unwrap();
    assert_eq!(gone.to_string(), "no such secret at a (store aws)");
    assert!(gone.is_absence() && third.objects.len() == 2);

    provider.behave(Behaviour::Hangs);
    drop(provider);
    let down = session.fetch(&plan).await;
    assert!(down.objects.len() == 2 && down.objects.iter().all(Result::is_err));
}
