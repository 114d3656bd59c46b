//! `Listener`: the addresses that a server listens on, TCP and Unix-domain together.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::socket::{Deadline, poll_all};
use crate::stop::StopSignal;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 256;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix-domain socket in the file system.
    Unix {
        /// Path of the socket, at most 107 bytes.
        path: PathBuf,
        /// Permission bits of the socket; who may not write cannot connect.
        mode: u32,
    },
}

/// Who connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client on this machine, through the Unix-domain socket.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// Sockets that listen. Dropped, it removes the Unix-domain sockets from the file system.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    tcp_addresses: Vec<SocketAddr>,
    unix_paths: Vec<PathBuf>,
}

impl Listener {
    /// Listens on all of `addresses`, or fails naming the one that cannot be had.
    pub fn bind(addresses: &[ListenAddress]) -> Result<Listener, BindError> {
        let mut listener =
            Listener { sockets: Vec::new(), tcp_addresses: Vec::new(), unix_paths: Vec::new() };
        for address in addresses {
            listener.add(address)?;
        }
        Ok(listener)
    }

    /// Listens on one more address, such as a Unix-domain socket named after the TCP port that the
    /// kernel has chosen.
    pub fn add(&mut self, address: &ListenAddress) -> Result<(), BindError> {
        let done = match address {
            ListenAddress::Tcp(address) => self.bind_tcp(*address),
            ListenAddress::Unix { path, mode } => self.bind_unix(path, *mode),
        };
        done.map_err(|source| BindError { address: address.clone(), source })
    }

    fn bind_tcp(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Else a restart has to wait until the old connections' addresses have cooled down.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        self.listen(socket)?;
        self.tcp_addresses.push(bound);
        Ok(())
    }

    fn bind_unix(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let address = SockAddr::unix(path)?;
        if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
            // Left over by a server that was killed, unless somebody answers.
            let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            if probe.connect(&address).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&address)?;
        self.unix_paths.push(path.to_owned());
        // Before listen(), so that nobody can connect under the wrong mode.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        self.listen(socket)
    }

    fn listen(&mut self, socket: Socket) -> io::Result<()> {
        socket.listen(BACKLOG)?;
        // A client that gives up between poll and accept must not block the accepting thread.
        socket.set_nonblocking(true)?;
        self.sockets.push(socket);
        Ok(())
    }

    /// The TCP addresses in use, with the ports that the kernel chose.
    pub fn tcp_addresses(&self) -> &[SocketAddr] {
        &self.tcp_addresses
    }

    /// The next connection; `None` when `stop` has fired.
    pub(crate) fn accept(&self, stop: &StopSignal) -> io::Result<Option<(Socket, Peer)>> {
        loop {
            let mut fds: Vec<PollFd<'_>> = self
                .sockets
                .iter()
                .map(|s| s.as_fd())
                .chain([stop.as_fd()])
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            poll_all(&mut fds, Deadline::NEVER)?;
            if stop.is_fired() {
                return Ok(None);
            }
            let ready = fds.iter().map(|fd| fd.revents().is_some_and(|e| !e.is_empty()));
            for (socket, _) in self.sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
                match socket.accept() {
                    Ok((connection, address)) => {
                        let peer = address.as_socket().map_or(Peer::Unix, Peer::Tcp);
                        return Ok(Some((connection, peer)));
                    }
                    Err(e) if is_passing(&e) => continue,
                    Err(e) => return Err(e),
                }
            }
        }
    }
}

/// Errors of `accept` that concern one connection which is gone again.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

impl Drop for Listener {
    fn drop(&mut self) {
        for path in &self.unix_paths {
            // The folder may be gone already, which is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {}: {source}", describe(address))]
pub struct BindError {
    /// The address.
    pub address: ListenAddress,
    /// What the operating system says; `AddrInUse` if another server is there.
    pub source: io::Error,
}

fn describe(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix { path, .. } => path.display().to_string(),
    }
}
