//! `File`: a file of a repository, open.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::seam::{Edit, FileSeam, Seam};
use crate::write_out;

/// Zeros are written in pieces of this many bytes at most.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file of a repository, open. Each change of it is one operation of the seam; reads are the
/// system's own.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    seam: FileSeam,
}

impl File {
    /// Opens a file that is there, for reading.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn open(path: &Path) -> io::Result<File> {
        Ok(File { file: fs::File::open(path)?, seam: FileSeam::reading() })
    }

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn open_to_write(path: &Path) -> io::Result<File> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        Ok(File { file, seam: FileSeam::of(path) })
    }

    /// Opens a file for reading and writing, as it is, and makes an empty one where none is. The name
    /// of a new one is durable once its folder is synced.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn open_or_create(path: &Path) -> io::Result<File> {
        File::make(path, false)
    }

    /// Makes an empty file, or empties the one that is there, for reading and writing. The name is
    /// durable once its folder is synced.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn create(path: &Path) -> io::Result<File> {
        File::make(path, true)
    }

    fn make(path: &Path, empty: bool) -> io::Result<File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(empty);
        let file = Seam::at(path).create(path, empty, || options.open(path))?;
        Ok(File { file, seam: FileSeam::of(path) })
    }

    /// Reads as much as there is, up to the buffer's length, from `offset` bytes behind the beginning.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Fills the buffer from `offset` bytes behind the beginning.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; whatever reading gives.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes all of `bytes` at `offset` bytes behind the beginning.
    ///
    /// # Errors
    /// Whatever the file system gives; some of the bytes may then have been written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.seam.edit(&self.file, Edit::Write { offset, bytes })
    }

    /// Writes zeros from `offset` bytes behind the beginning up to `end`, so that the file system has given space for
    /// them and, once they are synced, need note nothing when other bytes take their place.
    ///
    /// # Errors
    /// Whatever the file system gives; some of them may then have been written.
    pub fn write_zeros(&self, mut offset: u64, end: u64) -> io::Result<()> {
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let piece = ZEROS.get(..left).unwrap_or(&ZEROS);
            self.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Has the disk begin to write what stands in `length` bytes at `offset`, and does not wait for it: the next sync is
    /// the shorter for it. Changes nothing of what a crash may leave, and so is no operation of the seam.
    pub fn begin_writing_out(&self, offset: u64, length: u64) {
        write_out::begin(&self.file, offset, length);
    }

    /// Cuts the file off at `length` bytes, or fills it up to that with zeros.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.seam.edit(&self.file, Edit::Length(length))
    }

    /// Makes content and length durable, not the name.
    ///
    /// # Errors
    /// Whatever the file system gives. What was written since the last sync may then be lost, and the
    /// next sync need not say so.
    pub fn sync_data(&self) -> io::Result<()> {
        self.seam.sync(|| self.file.sync_data())
    }

    /// The same with all that the file system knows of the file.
    ///
    /// # Errors
    /// As `sync_data`.
    pub fn sync_all(&self) -> io::Result<()> {
        self.seam.sync(|| self.file.sync_all())
    }
}

/// Writes where the last write through this ended.
impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let offset = self.file.stream_position()?;
        self.write_all_at(bytes, offset)?;
        self.file.seek(SeekFrom::Start(offset + bytes.len() as u64))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
