//! Making the socket: TCP or Unix-domain, in a given time.

use std::io;
use std::net::ToSocketAddrs;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::AsFd;

use crate::client::error::ClientError;
use crate::client::params::{ConnectParams, Host};
use crate::error::ConnectionError;
use crate::socket::{Deadline, WireSocket, poll_all};
use crate::stop::StopSignal;

/// Pause before a Unix-domain connect is tried again because the server's backlog is full, for
/// which the kernel has no notification.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Connects to the first address of the host that answers.
pub(crate) fn connect(
    params: &ConnectParams,
    deadline: Deadline,
    stop: Option<&StopSignal>,
) -> Result<WireSocket, ClientError> {
    let failed = |source| ClientError::Connect { address: params.address(), source };
    let addresses = resolve(params).map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match connect_one(&address, deadline, stop) {
            Ok(socket) => return WireSocket::new(socket, stop.cloned()).map_err(failed),
            Err(e) => last = e,
        }
        if stop.is_some_and(StopSignal::is_fired) {
            return Err(ConnectionError::Stopped.into());
        }
    }
    Err(failed(last))
}

fn resolve(params: &ConnectParams) -> io::Result<Vec<SockAddr>> {
    match &params.host {
        Host::UnixDirectory(_) => Ok(vec![SockAddr::unix(params.unix_socket())?]),
        Host::Tcp(name) => {
            Ok((name.as_str(), params.port).to_socket_addrs()?.map(SockAddr::from).collect())
        }
    }
}

fn connect_one(
    address: &SockAddr,
    deadline: Deadline,
    stop: Option<&StopSignal>,
) -> io::Result<Socket> {
    let domain = if address.is_unix() { Domain::UNIX } else { address.domain() };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    loop {
        let error = match socket.connect(address) {
            Ok(()) => return Ok(socket),
            Err(e) => e,
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINPROGRESS) => break,
            Some(Errno::EINTR) => {}
            Some(Errno::EAGAIN) if address.is_unix() => {
                let pause = Deadline::after(BACKLOG_PAUSE);
                if deadline.is_over() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                match stop {
                    Some(stop) if stop.wait(BACKLOG_PAUSE) => return Err(error),
                    Some(_) => {}
                    None => drop(poll_all(&mut [], pause)?),
                }
            }
            _ => return Err(error),
        }
    }
    wait_connected(&socket, deadline, stop)?;
    Ok(socket)
}

fn wait_connected(
    socket: &Socket,
    deadline: Deadline,
    stop: Option<&StopSignal>,
) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    fds.extend(stop.map(|stop| PollFd::new(stop.as_fd(), PollFlags::POLLIN)));
    if !poll_all(&mut fds, deadline)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if stop.is_some_and(StopSignal::is_fired) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
