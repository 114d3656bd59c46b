//! Log lines on stderr, written by a thread of their own; the control plane sends them to a file.

use std::io;
use std::str::FromStr;

use slog::{Drain, Level, Logger, o};

/// Lines that may wait for the writing thread. When a burst overflows it, lines are dropped and
/// their number is logged, for a full disk must not stop the page server.
const QUEUE_LINES_MAX: usize = 4096;

/// The least important lines that are still logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(Level);

impl Default for LogLevel {
    fn default() -> LogLevel {
        LogLevel(Level::Info)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        let level = match text {
            "error" => Level::Error,
            "warning" => Level::Warning,
            "info" => Level::Info,
            "debug" => Level::Debug,
            _ => return Err("expected error, warning, info or debug".to_owned()),
        };
        Ok(LogLevel(level))
    }
}

/// A logger and the thread behind it. Dropped last: that writes out what is still queued.
pub struct Logging {
    logger: Logger,
    // Declared after the logger: the guard waits for the thread, which ends when its queue has
    // been written.
    _guard: slog_async::AsyncGuard,
}

impl Logging {
    /// Starts to log to stderr.
    pub fn to_stderr(level: LogLevel) -> Logging {
        let decorator = slog_term::PlainDecorator::new(io::stderr());
        let format = slog_term::FullFormat::new(decorator)
            .use_custom_timestamp(slog_term::timestamp_utc)
            .use_original_order()
            .build()
            .fuse();
        let (drain, guard) = slog_async::Async::new(format)
            .chan_size(QUEUE_LINES_MAX)
            .thread_name("log".to_owned())
            .build_with_guard();
        let logger = Logger::root(drain.filter_level(level.0).fuse(), o!());
        Logging { logger, _guard: guard }
    }

    /// The logger that all others are made from.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }
}
