//! A non-blocking socket with waits that end: by deadline, by `StopSignal`, by the peer.
//!
//! Both ends of the protocol use it. Nothing here raises SIGPIPE, starts a thread or touches global
//! state, and an interrupting signal (frequent in a PostgreSQL backend) only restarts the wait.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use socket2::{Socket, TcpKeepalive};

use crate::error::ConnectionError;
use crate::limits;
use crate::stop::StopSignal;

/// Until when to wait; `Deadline::NEVER` waits for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) const NEVER: Deadline = Deadline(None);

    pub(crate) fn after(timeout: Duration) -> Deadline {
        // A timeout too far away for the clock is none.
        Deadline(Instant::now().checked_add(timeout))
    }

    pub(crate) fn after_option(timeout: Option<Duration>) -> Deadline {
        timeout.map_or(Deadline::NEVER, Deadline::after)
    }

    pub(crate) fn is_over(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }

    /// What is left, for `poll`: rounded up, so that a wait never ends before the deadline.
    fn poll_timeout(self) -> PollTimeout {
        let Some(end) = self.0 else { return PollTimeout::NONE };
        let left = end.saturating_duration_since(Instant::now());
        let millis = left.as_nanos().div_ceil(1_000_000).min(1 << 30);
        i32::try_from(millis)
            .ok()
            .and_then(|ms| PollTimeout::try_from(ms).ok())
            .unwrap_or(PollTimeout::MAX)
    }
}

/// Waits until `fd` is readable (or has an error to report); `false` if the deadline came first.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll_all(&mut fds, deadline)
}

/// `poll(2)` that goes on after a signal; `false` if the deadline came first.
pub(crate) fn poll_all(fds: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        match poll(fds, deadline.poll_timeout()) {
            Ok(0) if deadline.is_over() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// A connected stream socket in non-blocking mode.
#[derive(Debug)]
pub(crate) struct WireSocket {
    socket: Socket,
    stop: Option<StopSignal>,
}

impl WireSocket {
    /// Takes over a connected socket. `stop`, when given, ends every later wait.
    pub(crate) fn new(socket: Socket, stop: Option<StopSignal>) -> io::Result<WireSocket> {
        socket.set_nonblocking(true)?;
        if socket.local_addr()?.as_socket().is_some() {
            socket.set_tcp_nodelay(true)?;
            let probes = TcpKeepalive::new()
                .with_time(limits::TCP_KEEPALIVE_TIME)
                .with_interval(limits::TCP_KEEPALIVE_INTERVAL);
            socket.set_tcp_keepalive(&probes)?;
        }
        Ok(WireSocket { socket, stop })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(StopSignal::is_fired)
    }

    /// Waits for one of the wanted directions.
    pub(crate) fn wait(
        &self,
        read: bool,
        write: bool,
        deadline: Deadline,
        doing: &'static str,
    ) -> Result<Ready, ConnectionError> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, read);
        wanted.set(PollFlags::POLLOUT, write);
        let stop_fd = self.stop.as_ref().map_or(self.socket.as_fd(), StopSignal::as_fd);
        let mut fds =
            [PollFd::new(self.socket.as_fd(), wanted), PollFd::new(stop_fd, PollFlags::POLLIN)];
        let count = if self.stop.is_some() { 2 } else { 1 };
        let ready = poll_all(&mut fds[..count], deadline).map_err(ConnectionError::Io)?;
        if self.is_stopped() {
            return Err(ConnectionError::Stopped);
        }
        if !ready {
            return Err(ConnectionError::TimedOut(doing));
        }
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        // An error or hang-up counts as both: the next call on the socket says what it is.
        let over = events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        Ok(Ready {
            readable: read && (over || events.contains(PollFlags::POLLIN)),
            writable: write && (over || events.contains(PollFlags::POLLOUT)),
        })
    }

    /// One read into the free space of `buffer`, of which there must be some.
    /// `None`: nothing there now. `Some(0)`: the peer has ended its side.
    pub(crate) fn recv(&self, buffer: &mut BytesMut) -> Result<Option<usize>, ConnectionError> {
        debug_assert!(buffer.capacity() > buffer.len(), "a read into nothing looks like the end");
        loop {
            match self.socket.recv(buffer.spare_capacity_mut()) {
                Ok(count) => {
                    // SAFETY: `recv` has written the first `count` bytes of the spare capacity.
                    unsafe { buffer.advance_mut(count) };
                    return Ok(Some(count));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(ConnectionError::from_socket(e)),
            }
        }
    }

    /// As `recv`, for what may bring a descriptor along, which is put into `descriptor`.
    pub(crate) fn recv_with_descriptor(
        &self,
        buffer: &mut BytesMut,
        descriptor: &mut Option<OwnedFd>,
    ) -> Result<Option<usize>, ConnectionError> {
        let mut bytes = [0; DESCRIPTOR_READ_BYTES];
        let mut control = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let message = match recvmsg::<()>(fd, &mut parts, Some(&mut control), flags) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(ConnectionError::from_socket(errno.into())),
            };
            let count = message.bytes;
            let controls = message.cmsgs().map_err(|_| {
                ConnectionError::protocol("more descriptors with a message than there can be")
            })?;
            for control in controls {
                let ControlMessageOwned::ScmRights(received) = control else { continue };
                for fd in received {
                    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
                    descriptor.get_or_insert(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            buffer.put_slice(bytes.get(..count).unwrap_or_default());
            return Ok(Some(count));
        }
    }

    /// As `send`, of bytes that take a descriptor along, of which the peer gets a copy. On a Unix-domain socket only.
    pub(crate) fn send_with_descriptor(
        &self,
        bytes: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> Result<Option<usize>, ConnectionError> {
        let descriptors = [descriptor.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let parts = [IoSlice::new(bytes)];
        loop {
            let fd = self.socket.as_raw_fd();
            match sendmsg::<()>(fd, &parts, &control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => return Ok(Some(count)),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(ConnectionError::from_socket(errno.into())),
            }
        }
    }

    /// Whether the peer is reached by a Unix-domain socket, so that it is on this machine.
    pub(crate) fn is_unix(&self) -> bool {
        self.socket.local_addr().is_ok_and(|address| address.is_unix())
    }

    /// One write; `None`: the kernel takes nothing now.
    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> Result<Option<usize>, ConnectionError> {
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL.bits();
            match self.socket.send_vectored_with_flags(parts, flags) {
                Ok(count) => return Ok(Some(count)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(ConnectionError::from_socket(e)),
            }
        }
    }

    /// Writes all of `parts`. `timeout` bounds the wait for the kernel to take anything more.
    /// `while_waiting` is called before each wait, with whether there is something to read, and
    /// says whether it wants to know when there is.
    pub(crate) fn send_all(
        &self,
        mut parts: &mut [IoSlice<'_>],
        timeout: Option<Duration>,
        mut while_waiting: impl FnMut(bool) -> Result<bool, ConnectionError>,
    ) -> Result<(), ConnectionError> {
        // Leading empty slices would make a complete write look like a write of nothing.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            // The kernel refuses more slices than IOV_MAX (1024); what is over waits its turn.
            match self.send(&parts[..parts.len().min(SLICES_MAX)])? {
                Some(0) => return Err(ConnectionError::Closed),
                Some(count) => IoSlice::advance_slices(&mut parts, count),
                None => {
                    let deadline = Deadline::after_option(timeout);
                    let mut ready = Ready::default();
                    while !ready.writable {
                        let read = while_waiting(ready.readable)?;
                        ready = self.wait(read, true, deadline, "sending")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes `parts` until the kernel has taken nothing for as long as `patience`. Gives how many bytes it
    /// took.
    pub(crate) fn send_within(
        &self,
        mut parts: &mut [IoSlice<'_>],
        patience: Duration,
    ) -> Result<usize, ConnectionError> {
        let mut sent = 0;
        // Leading empty slices would make a complete write look like a write of nothing.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.send(&parts[..parts.len().min(SLICES_MAX)])? {
                Some(0) => return Err(ConnectionError::Closed),
                Some(count) => {
                    sent += count;
                    IoSlice::advance_slices(&mut parts, count);
                }
                None => match self.wait(false, true, Deadline::after(patience), "sending") {
                    Ok(_) => {}
                    Err(ConnectionError::TimedOut(_)) => break,
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(sent)
    }

    /// Tries for a short while to hand over a last message, whether stopped or not.
    pub(crate) fn send_farewell(&self, bytes: &[u8]) {
        let deadline = Deadline::after(limits::FAREWELL_TIMEOUT);
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.send(&[IoSlice::new(rest)]) {
                Ok(Some(count)) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
                Ok(None) => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    if !poll_all(&mut fds, deadline).unwrap_or(false) {
                        return;
                    }
                }
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }

    /// Ends both directions at once, for whichever thread holds the other half.
    pub(crate) fn shutdown(&self) {
        // Already disconnected is what is wanted.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Most slices handed to one `sendmsg`; Linux's `UIO_MAXIOV` is 1024.
const SLICES_MAX: usize = 1024;

/// What is read at once while a descriptor is awaited, which comes with a short message.
const DESCRIPTOR_READ_BYTES: usize = 8 << 10;
