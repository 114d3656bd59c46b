//! Where the page server can be reached: its Unix socket's folder and `pageserver.addr`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Name of the file within the repository.
pub const ADDRESS_FILE_NAME: &str = "pageserver.addr";

/// The user and database that clients name; the page server accepts any.
const CLIENT_NAME: &str = "zenith";
/// Longest path of a Unix socket in bytes: the system allows 107, and PostgreSQL's clients put
/// `.s.PGSQL.PORT` behind the folder themselves.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// Longest name of a socket in its folder: `.s.PGSQL.65535`.
const SOCKET_NAME_BYTES_MAX: usize = 14;

/// The folder for the Unix socket of the repository at `repo` (an absolute path without links),
/// made if it is not there: `run` within the repository, or if that is too long for a socket's
/// path, one in `/tmp` named by a hash of the repository's path.
pub fn unix_socket_dir(repo: &Path) -> io::Result<PathBuf> {
    let inside = repo.join("run");
    let fits = inside.as_os_str().len() + 1 + SOCKET_NAME_BYTES_MAX <= SOCKET_PATH_BYTES_MAX;
    let dir = if fits {
        inside
    } else {
        let hash = crc32c::crc32c(repo.as_os_str().as_bytes());
        PathBuf::from(format!("/tmp/zenith-{hash:08x}"))
    };
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    // In /tmp anyone could have been there first, with a folder or a link of their own.
    let found = fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        let problem = format!("{} is not a folder of this account", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(dir)
}

/// `pageserver.addr`: two lines, the connection strings for the Unix socket and for TCP. There
/// only while the daemon serves; removed when dropped.
#[derive(Debug)]
pub struct AddressFile {
    path: PathBuf,
}

impl AddressFile {
    /// Writes the file into the repository at `repo`.
    pub fn create(repo: &Path, socket_dir: &Path, tcp: SocketAddr) -> io::Result<AddressFile> {
        let path = repo.join(ADDRESS_FILE_NAME);
        // Whoever listens on every address is reached here on the local one.
        let host = match tcp.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            ip if ip.is_ipv4() => "127.0.0.1".to_owned(),
            _ => "::1".to_owned(),
        };
        let content = format!(
            "{}\n{}\n",
            connstr(&socket_dir.display().to_string(), tcp.port()),
            connstr(&host, tcp.port()),
        );
        durable_files::write_file(&path, content.as_bytes())?;
        Ok(AddressFile { path })
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next start replaces the file anyway.
        let _ = fs::remove_file(&self.path);
    }
}

fn connstr(host: &str, port: u16) -> String {
    let quoted = if host.contains([' ', '\'', '\\']) {
        format!("'{}'", host.replace('\\', "\\\\").replace('\'', "\\'"))
    } else {
        host.to_owned()
    };
    format!("host={quoted} port={port} user={CLIENT_NAME} dbname={CLIENT_NAME}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_the_repository_if_its_path_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let short = dir.path().join("r");
        fs::create_dir(&short).unwrap();
        assert_eq!(unix_socket_dir(&short).unwrap(), short.join("run"));
        assert_eq!(unix_socket_dir(&short).unwrap(), short.join("run"), "again");

        let long = dir.path().join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        let found = unix_socket_dir(&long).unwrap();
        assert!(found.starts_with("/tmp") && found.is_dir(), "{}", found.display());
        fs::remove_dir(found).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("run")).unwrap();
        assert!(unix_socket_dir(dir.path()).is_err());
    }

    #[test]
    fn the_file_names_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = "0.0.0.0:6400".parse().unwrap();
        let file = AddressFile::create(dir.path(), Path::new("/a b/run"), tcp).unwrap();
        let path = dir.path().join(ADDRESS_FILE_NAME);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "host='/a b/run' port=6400 user=zenith dbname=zenith\n\
             host=127.0.0.1 port=6400 user=zenith dbname=zenith\n"
        );
        drop(file);
        assert!(!path.exists());
    }
}
