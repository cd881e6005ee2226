//! Waiting, with a deadline, for what nobody announces.

use std::time::Duration;

const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until the condition holds.
///
/// # Errors
/// It did not hold within 20 s; `what` says what was awaited.
pub async fn until(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let wait = async {
        while !condition() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .map_err(|_| anyhow::anyhow!("{what} did not come within {PATIENCE:?}"))
}
