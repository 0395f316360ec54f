//! The daemon's own log lines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The level or directives cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level `{level}` is not valid: {reason}; write error, warn, info, debug, trace, or directives such as `info,ledge_edge=debug`"
)]
pub struct LogLevelError {
    level: String,
    reason: String,
}

/// Sends log lines of `level` and above to standard error, as JSON if asked.
///
/// # Errors
/// When `level` cannot be read.
pub fn init(level: &str, json: bool) -> Result<(), LogLevelError> {
    let filter = EnvFilter::try_new(level).map_err(|err| LogLevelError {
        level: level.to_owned(),
        reason: err.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call, as in tests, keeps the first subscriber.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.with_target(false).try_init()
    };
    Ok(())
}
