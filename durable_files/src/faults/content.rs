//! `Content`: the bytes of a file, of which many begin with zeros: a segment of WAL in whose middle a
//! history begins.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// So many zeros, and then these bytes.
#[derive(Clone, Default, Hash, Debug)]
pub(super) struct Content {
    zeros: usize,
    bytes: Vec<u8>,
}

impl Content {
    pub fn of(mut bytes: Vec<u8>) -> Content {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Content { zeros, bytes: bytes.split_off(zeros) }
    }

    pub fn len(&self) -> usize {
        self.zeros + self.bytes.len()
    }

    pub fn set_len(&mut self, len: usize) {
        if len <= self.zeros || self.bytes.is_empty() {
            *self = Content { zeros: len, bytes: Vec::new() };
        } else {
            self.bytes.resize(len - self.zeros, 0);
        }
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.len() < end {
            self.set_len(end);
        }
        let zeros = self.zeros.min(offset);
        let before = self.zeros - zeros;
        self.bytes.splice(..0, std::iter::repeat_n(0, before));
        self.zeros = zeros;
        self.bytes[offset - zeros..end - zeros].copy_from_slice(bytes);
    }

    pub fn build(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.len() as u64)?;
        file.write_all_at(&self.bytes, self.zeros as u64)
    }
}
