//! What is resolved for sidecars, what of the driver's notices is audited, and the end of all volumes at once.

use sotto_handoff::message::{Notice, Resolve};

use super::super::*;
use super::fixture::{Fixture, fixture};
use super::kernel::{FIRST_FILE, Kernel};
use super::said;
use sotto_handoff::link::Handler as _;
use sotto_handoff::message::{Code, Pod};

const DENIED: i32 = 13;

fn resolve(fixture: &Fixture, class: &str) -> Resolve {
    let Prepare { volume_id, pod, .. } = fixture.message("csi-1");
    Resolve { volume_id, pod, secret_provider_class: class.to_owned(), deadline_ms: 1_000 }
}

#[tokio::test]
async fn a_class_is_resolved_without_a_token_and_nothing_is_asked_of_the_store() {
    let fixture = fixture();
    let resolution = fixture.volumes.resolve(resolve(&fixture, "with-copies")).await.ok().unwrap();
    assert_eq!(resolution.class.parameters["roleName"], "payments");
    assert_eq!((resolution.plan.store.as_str(), resolution.plan.objects.len()), ("main", 2));
    assert_eq!(resolution.warnings().len(), 2, "{:?}", resolution.warnings());
    assert_eq!(fixture.reports.take(), Vec::<String>::new());
    fixture.volumes.tell_warnings(&resolution);
    assert_eq!(fixture.reports.take().len(), 2);
    fixture.volumes.audit_resolved(&resolution, None);
    assert_eq!(fixture.audited().await, ["resolve allowed"]);
    assert_eq!((fixture.store.counts(), fixture.volumes.count()), ((0, 0, 0), 0));
}

#[tokio::test]
async fn it_is_refused_in_the_words_of_a_prepare() {
    let fixture = fixture();
    let mut of_shop = resolve(&fixture, "payments-db");
    of_shop.pod.as_mut().unwrap().namespace = "shop".to_owned();
    let mut of_another_node = resolve(&fixture, "payments-db");
    of_another_node.pod.as_mut().unwrap().node = "node-2".to_owned();
    for (message, code) in [
        (resolve(&fixture, "nowhere"), Code::NotFound),
        (resolve(&fixture, "skip-verify"), Code::InvalidArgument),
        (of_shop, Code::PermissionDenied),
        (of_another_node, Code::FailedPrecondition),
        (Resolve { pod: None, ..resolve(&fixture, "payments-db") }, Code::InvalidArgument),
    ] {
        let prepare = Prepare {
            pod: message.pod.clone(),
            secret_provider_class: message.secret_provider_class.clone(),
            ..fixture.message("csi-1")
        };
        let resolved = fixture.volumes.resolve(message).await;
        let resolved = resolved.inspect_err(|it| fixture.volumes.audit_unresolved(it));
        let resolved = said(resolved.map_err(|unresolved| unresolved.refusal));
        assert_eq!(resolved, said(fixture.prepare_with(prepare).await));
        assert_eq!(resolved.0, code);
    }
    let audited = fixture.audited().await;
    assert_eq!(audited.iter().filter(|it| *it == "resolve denied").count(), 3, "{audited:?}");
}

#[tokio::test]
async fn a_refused_handoff_is_an_event_and_a_line_of_the_audit_log() {
    let fixture = fixture();
    let notice = |reason: &str| {
        let pod: Option<Pod> = fixture.message("csi-1").pod;
        let message = "a process of uid 1000 asked".to_owned();
        Body::Notice(Notice { pod, reason: reason.to_owned(), message })
    };
    fixture.volumes.handle(notice("HandoffRefused"), None).await.unwrap();
    let reports = fixture.reports.take();
    assert_eq!(reports, ["web-0 HandoffRefused: a process of uid 1000 asked"]);
    assert_eq!(fixture.audited().await, ["handoff denied"]);
    fixture.volumes.handle(notice("MountedAnew"), None).await.unwrap();
    assert_eq!(fixture.audited().await, Vec::<String>::new());
}

#[tokio::test]
async fn all_volumes_end_at_once_revoked_and_wiped_served_or_not() {
    let fixture = fixture();
    for volume in ["csi-1", "csi-2"] {
        fixture.prepare(volume).await.unwrap();
    }
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    fixture.volumes.release_all().await;
    assert_eq!((fixture.store.counts(), fixture.volumes.count()), ((2, 2, 2), 0));
    assert_eq!(kernel.open(FIRST_FILE).await, DENIED);
    fixture.volumes.release_all().await;
}
