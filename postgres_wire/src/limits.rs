//! The bounds of everything that a peer could otherwise make grow.

use std::time::Duration;

/// Longest startup packet a server accepts, in bytes (PostgreSQL: `MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_PACKET_BYTES_MAX: usize = 10_000;
/// Longest message a server accepts from a client, in bytes. Our commands and page requests are
/// short; whatever claims to be longer is garbage and ends the connection.
pub const FRONTEND_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest message a client accepts from a server, in bytes: 65,535 pages, rounded up.
pub const BACKEND_MESSAGE_BYTES_MAX: usize = 513 << 20;
/// How much a read asks the kernel for at once, in bytes.
pub const READ_CHUNK_BYTES: usize = 64 << 10;
/// How much buffer is made ready at once for a long message, in bytes. A length word is a promise,
/// not a fact: memory follows the bytes that did arrive, in steps of this size.
pub const READ_AHEAD_BYTES_MAX: usize = 1 << 20;
/// How many bytes of output are gathered before they are written.
pub const WRITE_BUFFER_BYTES: usize = 128 << 10;
/// What the kernel is asked to hold of what a client on the same machine has not read, in bytes; it may allow
/// less (`net.core.wmem_max`). Enough for a server to go on working while its client reads.
pub const SEND_BUFFER_BYTES: usize = 1 << 20;
/// How much a client reads while the server does not take what it sends, in bytes. Beyond it the
/// client only writes, so that the buffer stays bounded.
pub const UNREAD_REPLIES_BYTES_MAX: usize = 64 << 20;
/// Prepared statements, and portals, that one connection may hold at a time.
pub const PREPARED_MAX: usize = 1024;
/// Text of all prepared statements and portals that one connection may hold, in bytes; also of one
/// statement into which its parameters were put, each perhaps many times.
pub const PREPARED_BYTES_MAX: usize = 16 << 20;
/// Parameters of one statement (PostgreSQL's protocol has a 16-bit count).
pub const PARAMETERS_MAX: usize = u16::MAX as usize;

/// How long a client may take nothing of what it is sent, unless a server is told otherwise.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to complete its startup packet, unless a server is told otherwise.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the rest of a message may keep a server waiting once its first byte was there.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the farewell of a server that stops may take.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_millis(200);
/// Silence after which the kernel begins to probe a TCP peer.
pub const TCP_KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// Pause between probes of a silent TCP peer.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

const _: () = assert!(STARTUP_PACKET_BYTES_MAX < FRONTEND_MESSAGE_BYTES_MAX);
const _: () = assert!(FRONTEND_MESSAGE_BYTES_MAX <= PREPARED_BYTES_MAX, "a statement fits");
const _: () = assert!(READ_CHUNK_BYTES <= READ_AHEAD_BYTES_MAX);
const _: () = assert!(BACKEND_MESSAGE_BYTES_MAX < i32::MAX as usize, "lengths are signed 32-bit");
const _: () = assert!(65_535 * 8192 < BACKEND_MESSAGE_BYTES_MAX, "the longest page reply fits");
