//! `serve`: one thread per connection, all of them gone when it returns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use slog::{Logger, debug, error, info, o, warn};

use crate::error::ConnectionError;
use crate::server::Handler;
use crate::server::connection::{ConnectionOptions, refuse, serve_connection};
use crate::server::listener::{Listener, Peer};
use crate::sqlstate::SqlState;
use crate::stop::StopSignal;

/// How a server treats its connections.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections beyond this number are refused.
    pub connections_max: usize,
    /// The same for each connection.
    pub connection: ConnectionOptions,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions { connections_max: 1000, connection: ConnectionOptions::default() }
    }
}

/// Pause after a failure to accept, which usually is a lack of file descriptors or memory.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` fires, and returns when the last connection's thread has ended.
///
/// `make_handler` is called on the connection's own thread. A handler that does long work should
/// look at `stop` itself; waiting for the client is ended by this module.
pub fn serve<H, F>(
    listener: &Listener,
    options: &ServerOptions,
    stop: &StopSignal,
    log: &Logger,
    make_handler: F,
) where
    H: Handler,
    F: Fn(&Peer) -> H + Sync,
{
    let open = AtomicUsize::new(0);
    let serial = AtomicU64::new(0);
    thread::scope(|scope| {
        loop {
            let (socket, peer) = match listener.accept(stop) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(e) => {
                    error!(log, "could not accept a connection"; "error" => %e);
                    stop.wait(ACCEPT_RETRY_PAUSE);
                    continue;
                }
            };
            let number = serial.fetch_add(1, Ordering::Relaxed);
            let log = log.new(o!("connection" => number, "peer" => peer.to_string()));
            let slot = Slot::take(&open);
            if slot.taken_before >= options.connections_max {
                warn!(log, "refused: too many connections"; "limit" => options.connections_max);
                refuse(socket, SqlState::TOO_MANY_CONNECTIONS, "too many connections");
                continue;
            }
            let make_handler = &make_handler;
            let thread_log = log.clone();
            let spawned = thread::Builder::new().name(format!("connection-{number}")).spawn_scoped(
                scope,
                move || {
                    let _slot = slot;
                    let log = thread_log;
                    // A panic in a command ends that connection, not the server.
                    let ended = catch_unwind(AssertUnwindSafe(|| {
                        let mut handler = make_handler(&peer);
                        serve_connection(socket, &mut handler, &options.connection, stop)
                    }));
                    report_end(&log, ended);
                },
            );
            if let Err(e) = spawned {
                error!(log, "could not start a thread for a connection"; "error" => %e);
                stop.wait(ACCEPT_RETRY_PAUSE);
            }
        }
    });
}

fn report_end(log: &Logger, ended: thread::Result<Result<(), ConnectionError>>) {
    match ended {
        Ok(Ok(()) | Err(ConnectionError::Stopped)) => debug!(log, "connection ended"),
        Ok(Err(ConnectionError::Closed)) => debug!(log, "client vanished"),
        Ok(Err(e)) => info!(log, "connection given up"; "reason" => %e),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            error!(log, "a command panicked, its connection is closed"; "panic" => text);
        }
    }
}

/// Counts a connection for as long as it lives.
struct Slot<'a> {
    open: &'a AtomicUsize,
    taken_before: usize,
}

impl Slot<'_> {
    fn take(open: &AtomicUsize) -> Slot<'_> {
        Slot { open, taken_before: open.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
