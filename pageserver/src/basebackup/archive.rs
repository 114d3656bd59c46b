//! The tar that a base backup is, written entry by entry.

use std::io::{self, Read, Write};

/// Permissions that PostgreSQL wants for its data directory's content.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A tar under construction. Without [`Archive::finish`] it is recognisably cut off.
pub(super) struct Archive<W: Write> {
    builder: tar::Builder<W>,
    modified: u64,
}

impl<W: Write> Archive<W> {
    /// Begins a tar whose entries were all last changed at `modified`, in seconds since 1970.
    pub fn new(out: W, modified: u64) -> Archive<W> {
        Archive { builder: tar::Builder::new(out), modified }
    }

    fn header(&self, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(self.modified);
        // Whose the files are is decided by whoever unpacks them.
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Directory, DIRECTORY_MODE, 0);
        self.builder.append_data(&mut header, path, io::empty())
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.file_from(path, content.len() as u64, content)
    }

    /// Adds a file of `size` bytes read from `content`, which must give exactly as many.
    pub fn file_from(&mut self, path: &str, size: u64, content: impl Read) -> io::Result<()> {
        let mut content = Exactly { inner: content, left: size };
        let mut header = self.header(tar::EntryType::Regular, FILE_MODE, size);
        self.builder.append_data(&mut header, path, &mut content)?;
        match content.left {
            0 => Ok(()),
            left => {
                let problem = format!("{path} came out {left} bytes short of {size}");
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem))
            }
        }
    }

    /// Ends the tar and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }
}

/// Reads no more than announced, and knows what is missing: `tar` itself counts nothing.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = self.inner.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::new(Vec::new(), 1_700_000_000);
        archive.directory("base").unwrap();
        archive.file("base/file", b"content").unwrap();
        archive.file_from("zeros", 20_000, io::repeat(0)).unwrap();
        let bytes = archive.finish().unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().display().to_string();
            found.push((path, entry.header().mode().unwrap(), content));
        }
        assert_eq!(
            found,
            [
                ("base".to_owned(), 0o700, Vec::new()),
                ("base/file".to_owned(), 0o600, b"content".to_vec()),
                ("zeros".to_owned(), 0o600, vec![0; 20_000]),
            ]
        );
    }

    #[test]
    fn a_file_that_comes_out_short_is_an_error() {
        let mut archive = Archive::new(Vec::new(), 0);
        let error = archive.file_from("f", 10, &b"short"[..]).unwrap_err();
        assert!(error.to_string().contains("5 bytes short"), "{error}");
    }
}
