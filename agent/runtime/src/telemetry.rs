//! JSON logs on standard error; standard output belongs to the audit log.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A filter that can't be read, or a second call.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter's syntax is wrong.
    #[error("log filter {0:?} can't be read: write e.g. info or sotto_node=debug,info")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// Logging was set up before.
    #[error("logging was set up before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging by `filter` (the syntax of `RUST_LOG`), one JSON object a line.
///
/// # Errors
/// An unreadable filter, or a second call in one process.
pub fn init(filter: &str) -> Result<(), TelemetryError> {
    // By target and level only: what filters by span brings a library of regular expressions into each binary.
    let filter = filter
        .parse::<Targets>()
        .map_err(|source| TelemetryError::Filter(filter.to_owned(), source))?;
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(json).try_init().map_err(TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_filter_is_named() {
        let error = init("sotto=loud=er").unwrap_err();
        assert!(error.to_string().contains("sotto=loud=er"));
    }
}
