//! The CSIDriver object compared with the configuration, as soon as the API server answers.

use std::time::Duration;

use sotto_core::identity::Audience;
use sotto_kubernetes::client::Cluster;
use sotto_kubernetes::driver_check::{self, Finding};

/// How long one question may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// First pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Asks until there is an answer, and logs what is wrong; ends then.
pub(super) async fn run(cluster: Cluster, driver: String, audiences: Vec<Audience>) {
    let findings = findings(&cluster, &driver, &audiences).await;
    for finding in &findings {
        if finding.is_fatal() {
            tracing::error!(%finding, "pods will not get their secrets");
        } else {
            tracing::warn!(%finding, "the CSIDriver object could be better");
        }
    }
    if findings.is_empty() {
        tracing::info!(driver, "the CSIDriver object fits the configuration");
    }
}

pub(super) async fn findings(
    cluster: &Cluster,
    driver: &str,
    audiences: &[Audience],
) -> Vec<Finding> {
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        match driver_check::check(cluster, driver, audiences, REQUEST_DEADLINE).await {
            Ok(findings) => return findings,
            Err(error) => {
                // Once for each reason: an outage may last.
                pause = pause.max(error.retry_after().unwrap_or_default());
                let reason = error.to_string();
                if reason != told {
                    tracing::warn!(%reason, "the CSIDriver object was not read; trying on");
                    told = reason;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
