//! Waiting for what nobody announces: a foreign process's socket, a file.

use std::time::Duration;

const POLL: Duration = Duration::from_millis(5);

/// Looks again and again until the condition holds. The caller bounds the time.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}
