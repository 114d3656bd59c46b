//! One redo process: a child that cannot outlive its value, and the three pipes to it.
//!
//! Nothing here waits for a single pipe: [`RedoProcess::exchange`] polls all three, because a
//! process that waits for us to read its standard error while we wait for its answer, or that
//! waits for us to read an answer while we wait to write, would wait for ever.

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use postgres_formats::BLCKSZ;
use slog::Logger;

use crate::command::command;
use crate::config::WalRedoConfig;
use crate::datadir::{DataDirError, make_data_dir};
use crate::limits::{ERROR_TEXT_BYTES_MAX, START_TIMEOUT};
use crate::managers::CustomManagers;
use crate::outbox::Outbox;
use crate::protocol::{PROTOCOL_VERSION, ProtocolError, Reply, decode_reply};
use crate::stderr::StderrLog;

/// Wished capacity of the pipes to and from a process. What the system grants is good enough.
const PIPE_BYTES: i32 = 512 * 1024;

/// Bytes of answers kept until they are taken. The longest answer fits twice.
const RECEIVED_BYTES: usize = 256 * 1024;
const _: () = assert!(RECEIVED_BYTES >= 2 * (ERROR_TEXT_BYTES_MAX + BLCKSZ));

/// Bytes read from standard error at once.
const STDERR_BYTES: usize = 64 * 1024;

/// No usable process.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its data directory cannot be made.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The program cannot be run.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Path of the program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A pipe cannot be used.
    #[error("cannot talk to it: {0}")]
    Pipe(#[from] io::Error),
    /// It ended instead of saying that it is ready.
    #[error("it ended at once: {0}")]
    Ended(String),
    /// It said nothing in time.
    #[error("it was not ready within {0:?}")]
    Timeout(Duration),
    /// It is not the program that we want.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The pool is being dropped.
    #[error("the pool is shutting down")]
    Stopped,
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// Something may have been read or written.
    Progress,
    /// The time is over.
    TimedOut,
    /// The process has closed its standard output: it has ended, or is about to.
    Ended,
    /// The pool is being dropped.
    Stopped,
}

/// A running process. Dropping it kills and reaps it.
pub struct RedoProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    stdin_broken: bool,
    stderr_ended: bool,
    /// Room for answers, and where those stand in it that were read and not yet taken.
    received: Vec<u8>,
    untaken: Range<usize>,
    /// Bytes of requests still to be written.
    pub outbox: Outbox,
    stderr_log: StderrLog,
    stderr_buffer: Vec<u8>,
    custom: CustomManagers,
    log: Logger,
}

impl RedoProcess {
    /// Starts a process with the data directory `dir` and waits until it is ready. `stop` becomes
    /// readable when the pool is dropped.
    ///
    /// The process is killed when the calling thread ends.
    pub fn start(
        config: &WalRedoConfig,
        dir: &Path,
        log: &Logger,
        stop: BorrowedFd<'_>,
    ) -> Result<RedoProcess, StartError> {
        make_data_dir(dir, &config.control_file, config.account)?;
        let program = config.postgres_bin_dir.join("postgres");
        let mut child = command(config, &program, dir)
            .spawn()
            .map_err(|source| StartError::Spawn { program, source })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for");
        };
        let log = log.new(slog::o!("redo_pid" => child.id()));
        let mut process = RedoProcess {
            child,
            stdin,
            stdout,
            stderr,
            stdin_broken: false,
            stderr_ended: false,
            received: vec![0; RECEIVED_BYTES],
            untaken: 0..0,
            outbox: Outbox::default(),
            stderr_log: StderrLog::new(log.clone()),
            stderr_buffer: vec![0; STDERR_BYTES],
            custom: CustomManagers::default(),
            log,
        };
        process.prepare_pipes()?;
        process.greet(stop)?;
        Ok(process)
    }

    /// The process's logger, which names it.
    pub fn log(&self) -> &Logger {
        &self.log
    }

    /// The resource managers that its libraries have registered.
    pub fn custom_managers(&self) -> CustomManagers {
        self.custom
    }

    fn prepare_pipes(&self) -> io::Result<()> {
        for fd in [self.stdin.as_fd(), self.stdout.as_fd(), self.stderr.as_fd()] {
            // Of our ends only; the process's own ends block, as it expects.
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        for fd in [self.stdin.as_fd(), self.stdout.as_fd()] {
            // Fewer switches between us and the process; refused where an account has many pipes.
            let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        }
        Ok(())
    }

    fn greet(&mut self, stop: BorrowedFd<'_>) -> Result<(), StartError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let reply = loop {
            if let Some(reply) = self.next_reply()? {
                break reply;
            }
            match self.exchange(deadline, stop)? {
                Exchanged::Progress => {}
                Exchanged::TimedOut => return Err(StartError::Timeout(START_TIMEOUT)),
                Exchanged::Ended => return Err(StartError::Ended(self.end())),
                Exchanged::Stopped => return Err(StartError::Stopped),
            }
        };
        match reply {
            Reply::Hello { protocol: PROTOCOL_VERSION, block_size, postgres, custom }
                if usize::try_from(block_size) == Ok(BLCKSZ) =>
            {
                slog::debug!(self.log, "redo process is ready"; "postgres" => postgres);
                self.custom = custom;
                Ok(())
            }
            other => Err(ProtocolError(format!("unexpected greeting {other:?}")).into()),
        }
    }

    /// Takes the next whole answer that has been read.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ProtocolError> {
        let unread = self.received.get(self.untaken.clone()).unwrap_or_default();
        let Some((reply, used)) = decode_reply(unread)? else { return Ok(None) };
        self.untaken.start += used;
        Ok(Some(reply))
    }

    /// Waits until a pipe can be used, and uses it.
    pub fn exchange(&mut self, deadline: Instant, stop: BorrowedFd<'_>) -> io::Result<Exchanged> {
        // Only what can be used: the end of a pipe that is no longer used would be reported for
        // ever, and make this a busy loop.
        let mut fds = Vec::with_capacity(4);
        fds.push(PollFd::new(stop, PollFlags::POLLIN));
        fds.push(PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN));
        let stderr_at = (!self.stderr_ended).then_some(fds.len());
        if stderr_at.is_some() {
            fds.push(PollFd::new(self.stderr.as_fd(), PollFlags::POLLIN));
        }
        let stdin_at = (!self.outbox.is_empty() && !self.stdin_broken).then_some(fds.len());
        if stdin_at.is_some() {
            fds.push(PollFd::new(self.stdin.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, poll_timeout(deadline)) {
            Ok(0) if Instant::now() >= deadline => return Ok(Exchanged::TimedOut),
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Exchanged::Progress),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: Option<usize>| {
            let events = at.and_then(|at| fds.get(at)).and_then(PollFd::revents);
            events.is_some_and(|events| !events.is_empty())
        };
        let (stopping, stdout_ready) = (is_ready(Some(0)), is_ready(Some(1)));
        let (stderr_ready, stdin_ready) = (is_ready(stderr_at), is_ready(stdin_at));
        if stopping {
            return Ok(Exchanged::Stopped);
        }
        if stderr_ready {
            self.read_stderr()?;
        }
        if stdin_ready {
            self.write_requests();
        }
        if stdout_ready && self.read_replies()? == 0 {
            return Ok(Exchanged::Ended);
        }
        Ok(Exchanged::Progress)
    }

    /// Writes what fits into the pipe.
    pub fn write_requests(&mut self) {
        if self.stdin_broken {
            self.outbox = Outbox::default();
        }
        if self.outbox.write_to(&mut self.stdin).is_err() {
            // It has ended. What it answered before is still in the other pipe.
            self.stdin_broken = true;
            self.outbox = Outbox::default();
        }
    }

    fn read_replies(&mut self) -> io::Result<usize> {
        // What is left of an answer goes to the front when there is room for not much more.
        if self.untaken.is_empty() {
            self.untaken = 0..0;
        } else if self.untaken.start > RECEIVED_BYTES / 2 {
            self.received.copy_within(self.untaken.clone(), 0);
            self.untaken = 0..self.untaken.len();
        }
        let room = self.received.get_mut(self.untaken.end..).unwrap_or_default();
        match self.stdout.read(room) {
            Ok(count) => {
                self.untaken.end += count;
                Ok(count)
            }
            Err(error) if is_temporary(&error) => Ok(1),
            Err(error) => Err(error),
        }
    }

    fn read_stderr(&mut self) -> io::Result<()> {
        match self.stderr.read(&mut self.stderr_buffer) {
            Ok(0) => self.stderr_ended = true,
            Ok(count) => {
                self.stderr_log.push(self.stderr_buffer.get(..count).unwrap_or_default());
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Kills and reaps the process; returns how it ended and what it wrote last.
    pub fn end(&mut self) -> String {
        let status = self.kill();
        // All that a dead process wrote is in the pipe; another holder of its end could write for
        // ever, hence the bound.
        for _ in 0..16 {
            match self.stderr.read(&mut self.stderr_buffer) {
                Ok(count) if count > 0 => {
                    self.stderr_log.push(self.stderr_buffer.get(..count).unwrap_or_default());
                }
                _ => break,
            }
        }
        let status = match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("unknown end ({error})"),
        };
        match self.stderr_log.last_lines().as_str() {
            "" => status,
            lines => format!("{status}; its last words: {lines}"),
        }
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        // One that is already ending may do so in its own way: that tells more than our signal.
        let patience =
            Instant::now() + Duration::from_millis(if self.is_ending() { 200 } else { 0 });
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// Whether it has closed its standard output.
    fn is_ending(&self) -> bool {
        let mut fds = [PollFd::new(self.stdout.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for RedoProcess {
    fn drop(&mut self) {
        // Fails only if it was reaped before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn poll_timeout(deadline: Instant) -> PollTimeout {
    // Rounded up, or the last millisecond would be spent polling in a loop.
    let left = deadline.saturating_duration_since(Instant::now());
    let left = if left.is_zero() { left } else { left + Duration::from_micros(999) };
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
