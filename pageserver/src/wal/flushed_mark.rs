//! `FlushedMark`: how far a timeline's WAL was durable at least, in the file `wal/flushed`.
//!
//! The WAL on disk ends where decoding it ends, and after a crash of the machine that may be
//! anywhere behind the last sync. The mark tells such an end from damage: WAL before the mark has
//! been reported as durable, so that one that ends earlier has been lost and must not be
//! taken for complete.
//!
//! The file has 12 bytes: the LSN and the CRC-32C of its 8 bytes, little-endian. It is made durable once,
//! before any WAL is received: where it is missing, nobody can tell how WAL should end. From then on it
//! is written in place after each sync of the WAL, once the server has been told, and not synced: a crash may
//! bring back an older mark, which promises less.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use durable_files::File;
use parking_lot::Mutex;
use postgres_formats::Lsn;

const FILE_NAME: &str = "flushed";
const LSN_BYTES: usize = 8;

/// How far a timeline's WAL was durable at least.
pub struct FlushedMark {
    path: PathBuf,
    // LOCK ORDER: leaf. Held while twelve bytes are written to the page cache; the first time, while
    // they are synced.
    file: Mutex<Option<File>>,
    is_durable: AtomicBool,
}

impl FlushedMark {
    /// The mark in the folder of the WAL segments.
    pub fn new(wal_dir: &Path) -> FlushedMark {
        let is_durable = AtomicBool::new(false);
        FlushedMark { path: wal_dir.join(FILE_NAME), file: Mutex::new(None), is_durable }
    }

    /// The mark, if there is one.
    ///
    /// # Errors
    /// `InvalidData` if it is not whole; whatever reading gives, other than that there is no such
    /// file.
    pub fn read(&self) -> io::Result<Option<Lsn>> {
        match fs::read(&self.path) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => match decode(&bytes) {
                Some(lsn) => Ok(Some(lsn)),
                None => {
                    let what = format!("{} is damaged", self.path.display());
                    Err(io::Error::new(io::ErrorKind::InvalidData, what))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes that everything before `lsn` is durable.
    ///
    /// # Errors
    /// Whatever writing gives; the mark then promises less than it could.
    pub fn write(&self, lsn: Lsn) -> io::Result<()> {
        self.write_as(&mut self.file.lock(), lsn).map(drop)
    }

    /// Notes the same, and sees to it that from now on there is a mark whatever happens.
    ///
    /// # Errors
    /// Whatever writing and syncing gives.
    pub fn make_durable(&self, lsn: Lsn) -> io::Result<()> {
        if self.is_durable.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut file = self.file.lock();
        self.write_as(&mut file, lsn)?.sync_all()?;
        self.path.parent().map_or(Ok(()), durable_files::sync_dir)?;
        self.is_durable.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn write_as<'a>(&self, file: &'a mut Option<File>, lsn: Lsn) -> io::Result<&'a File> {
        let file = match file {
            Some(file) => file,
            none => none.insert(File::open_or_create(&self.path)?),
        };
        file.write_all_at(&encode(lsn), 0)?;
        Ok(file)
    }
}

fn encode(lsn: Lsn) -> [u8; LSN_BYTES + 4] {
    let mut bytes = [0; LSN_BYTES + 4];
    let (value, checksum) = bytes.split_at_mut(LSN_BYTES);
    value.copy_from_slice(&lsn.as_u64().to_le_bytes());
    checksum.copy_from_slice(&crc32c::crc32c(value).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Lsn> {
    let (value, checksum) = bytes.split_first_chunk::<LSN_BYTES>()?;
    let expected = crc32c::crc32c(value).to_le_bytes();
    (checksum == expected).then(|| Lsn::new(u64::from_le_bytes(*value)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_mark_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mark = FlushedMark::new(dir.path());
        assert_eq!(mark.read().unwrap(), None);
        for lsn in [0x123_4567, 0x89AB_CDEF_0000] {
            mark.write(Lsn::new(lsn)).unwrap();
            assert_eq!(FlushedMark::new(dir.path()).read().unwrap(), Some(Lsn::new(lsn)));
        }
        let good = fs::read(dir.path().join(FILE_NAME)).unwrap();
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 0x10;
            assert_eq!(decode(&bad), None, "byte {n}");
            assert_eq!(decode(&good[..n]), None, "{n} bytes");
        }
    }
}
