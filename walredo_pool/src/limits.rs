//! Every bound of this crate, in one place, with what it protects.

use std::time::Duration;

/// Largest WAL record in bytes that is sent to a redo process: what PostgreSQL 16 and later allow
/// (`XLogRecordMaxSize`). A longer one is refused before anything is written.
pub const RECORD_BYTES_MAX: usize = 1020 * 1024 * 1024;

/// Groups of requests that wait for a free process; `submit` blocks when there are as many. Whoever plans need not
/// be further ahead, and their memory is used again while it is in the processor's cache.
pub const QUEUED_REQUESTS_MAX: usize = 64;

/// Requests of a batch that are collected before a process gets them, so that it is woken once.
pub const GROUP_REQUESTS_MAX: usize = 8;

/// Bytes of such requests at most: long chains had better begin.
pub const GROUP_BYTES_MAX: usize = 64 * 1024;

/// Work ahead of demand that waits for an idle process; whoever has more waits.
pub const QUEUED_AHEAD_MAX: usize = 4;

/// Buffers of requests that were answered, kept for new ones.
pub const SPARE_BUFFERS_MAX: usize = 128;

/// Largest buffer in bytes that is kept for a new request.
pub const SPARE_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Requests written to one process ahead of their replies. More hides no more latency, and makes
/// more requests wait behind a slow one.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 32;

/// Bytes of requests written to one process ahead of their replies, beyond which no further one is: long
/// chains should not wait for one process while another has none.
pub const IN_FLIGHT_BYTES_MAX: usize = 128 * 1024;

/// Times that a process may die with the same request in its hands before that request fails. The
/// first deaths may have another cause (an administrator, the out-of-memory killer).
pub const DEATHS_PER_REQUEST_MAX: u32 = 3;

/// Files of failed input that are kept; when there are as many, further ones are not written.
pub const POISONED_FILES_MAX: usize = 64;

/// Total bytes of one failed input that is saved; a larger one is only reported.
pub const POISONED_FILE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest line of a process's standard error that becomes one log message; the rest is cut off.
pub const STDERR_LINE_BYTES_MAX: usize = 8 * 1024;

/// Longest text of an error reply.
pub const ERROR_TEXT_BYTES_MAX: usize = 64 * 1024;

/// How long a new process may take until it says that it is ready.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often an idle process is looked at, so that one that died is replaced before it is needed.
pub const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Starts that may fail one after the other before requests are told so. A single one may have been
/// bad luck, such as a process killed before it was ready.
pub const FAILED_STARTS_MAX: u32 = 3;

/// Pause after the first failed start; it doubles with each further one up to `START_PAUSE_MAX`.
pub const START_PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause between two attempts to start a process.
pub const START_PAUSE_MAX: Duration = Duration::from_secs(5);
