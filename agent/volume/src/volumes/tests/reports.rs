//! What is reported, and what isn't.

use std::sync::Mutex;

use sotto_core::identity::{ClassName, WorkloadIdentity};
use sotto_core::snapshot::ObjectVersion;

use super::super::*;
use super::fixture::{Fixture, fixture};
use super::kernel::Kernel;
use super::said;
use crate::reporter::{SECRETS_FRESH, Severity};
use crate::token::testing::token_map;

/// Remembers what it was told.
#[derive(Default)]
pub(super) struct Reports(Mutex<Vec<String>>);

impl Reports {
    fn tell(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PodReporter for Reports {
    fn report(
        &self,
        pod: &WorkloadIdentity,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let is_good_news = reason == SECRETS_FRESH;
        let expected = if is_good_news { Severity::Normal } else { Severity::Warning };
        assert_eq!(severity, expected, "{reason}");
        self.tell(format!("{} {reason}: {message}", pod.pod_name));
    }

    fn served(
        &self,
        pod: &WorkloadIdentity,
        class: &ClassName,
        _: &str,
        objects: &[ObjectVersion],
    ) {
        self.tell(format!("{} serves {} of {class}", pod.pod_name, objects.len()));
    }

    fn released(&self, pod: &WorkloadIdentity, class: &ClassName) {
        self.tell(format!("{} released {class}", pod.pod_name));
    }
}

fn of_class(fixture: &Fixture, class: &str) -> Prepare {
    Prepare { secret_provider_class: class.to_owned(), ..fixture.message("csi-1") }
}

#[tokio::test]
async fn what_a_class_asks_for_in_vain_is_reported_although_the_volume_is_prepared() {
    let fixture = fixture();
    fixture.prepare_with(of_class(&fixture, "with-copies")).await.unwrap();
    let [copies, unknown] = &fixture.reports.take()[..] else { panic!("not two reports") };
    assert!(copies.contains("SecretObjectsIgnored: SecretProviderClass with-copies"), "{copies}");
    assert!(copies.contains("don't pass through etcd here; let the pod read"), "{copies}");
    assert!(unknown.contains("ClassPartlyIgnored") && unknown.contains("baoAddres"), "{unknown}");
}

#[tokio::test]
async fn a_refused_mount_is_left_to_kubelet() {
    let fixture = fixture();
    said(fixture.prepare_with(of_class(&fixture, "skip-verify")).await);
    said(fixture.prepare_with(of_class(&fixture, "nowhere")).await);
    assert_eq!(fixture.reports.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_is_reported_once_it_is_served_and_when_it_is_released() {
    let fixture = fixture();
    let pod = crate::token::testing::pod().pod_name;
    fixture.prepare("csi-1").await.unwrap();
    assert_eq!(fixture.reports.take(), Vec::<String>::new());
    let _kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    assert_eq!(fixture.reports.take(), [format!("{pod} serves 2 of payments-db")]);
    fixture.release("csi-1").await.unwrap();
    assert_eq!(fixture.reports.take(), [format!("{pod} released payments-db")]);
    fixture.release("csi-1").await.unwrap();
    assert_eq!(fixture.reports.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_is_reported_without_it() {
    let fixture = fixture();
    let token = fixture.signer.mint("other");
    said(fixture.token("csi-1", token_map("other", &token)).await);
    fixture.prepare("csi-1").await.unwrap();
    assert_eq!(fixture.reports.take(), Vec::<String>::new(), "of a volume that nobody knows");
    fixture.token("csi-1", token_map("bao", &fixture.signer.mint("bao"))).await.unwrap();
    assert_eq!(fixture.reports.take(), Vec::<String>::new());
    said(fixture.token("csi-1", token_map("other", &token)).await);
    let [report] = &fixture.reports.take()[..] else { panic!("not one report") };
    assert!(report.contains("TokenRefreshFailed: the pod's fresh token was not taken"), "{report}");
    assert!(report.contains("is served on with its last login"), "{report}");
    assert!(!report.contains(token.expose().rsplit('.').next().unwrap()));
}
