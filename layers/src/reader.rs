//! Reads a layer file.

use std::ops::Range;

use crate::blocks::{Blocks, Finish, Keep};
use crate::cursor::{Cursor, IndexRoot};
use crate::error::ReadError;
use crate::footer::{Footer, Summary};
use crate::header::Header;
use crate::limits::BOUND_BYTES_MAX;
use crate::scan::Scan;
use crate::versions::Versions;
use crate::walk::Walk;
use crate::{BlockCache, FileId, KeyRange, LayerKind, Lsn, Owner, ReadAt};

/// An open layer file. Any number of threads may use it at once.
///
/// Every byte that is given out was covered by a checksum that held.
#[derive(Debug)]
pub struct Reader<R> {
    pub(crate) blocks: Blocks<R>,
    pub(crate) header: Header,
    pub(crate) footer: Footer,
    pub(crate) root: IndexRoot,
}

impl<R: ReadAt> Reader<R> {
    /// Opens a file that must belong to `owner`. Reads the header, the footer and the root of the index:
    /// less than 5 KiB, however large the file is.
    pub fn open(source: R, owner: Owner, cache: &BlockCache) -> Result<Reader<R>, ReadError> {
        let file_bytes = source.length().map_err(|source| ReadError::Io { offset: 0, source })?;
        let header = Header::read(&source)?;
        if header.owner != owner {
            return Err(ReadError::WrongOwner { expected: owner, found: header.owner });
        }
        let footer = Footer::read(&source, header.file, file_bytes)?;
        let blocks = Blocks {
            source,
            file: header.file,
            lsns: header.lsns.clone(),
            cache: cache.clone(),
            finish: None,
        };
        let node = blocks.root(footer.root)?;
        let corrupt = ReadError::corrupt(footer.root.offset);
        if (node.level == 0) != footer.root_filter.is_some() {
            return Err(corrupt("there is a filter of all keys if and only if the root is a leaf"));
        }
        if (node.len() == 0) != (footer.summary.entry_count == 0) {
            return Err(corrupt("the index and the count of entries contradict each other"));
        }
        let root = IndexRoot { node, filter: footer.root_filter };
        Ok(Reader { blocks, header, footer, root })
    }

    /// The same reader, but that `finish` makes each value ready when it is read from the file, once for all
    /// who find it in the cache. All readers of a file that share a cache must do the same.
    pub fn finishing(mut self, finish: Finish) -> Reader<R> {
        self.blocks.finish = Some(finish);
        self
    }

    /// The file's id.
    pub fn file_id(&self) -> FileId {
        self.header.file
    }

    /// Whether it has all versions in a range of positions or all values at one.
    pub fn kind(&self) -> LayerKind {
        self.header.kind
    }

    /// The positions that it covers.
    pub fn lsns(&self) -> Range<Lsn> {
        self.header.lsns.clone()
    }

    /// The keys that it speaks of.
    pub fn keys(&self) -> &KeyRange {
        &self.footer.summary.keys
    }

    /// What is in it.
    pub fn summary(&self) -> &Summary {
        &self.footer.summary
    }

    /// The versions of `key` at or before `lsn_max`, newest first. Blocks are read as the iterator gets to
    /// them: stop when you have seen enough.
    pub fn get(&self, key: &[u8], lsn_max: Lsn) -> Versions<'_, R> {
        Versions::new(self, key, lsn_max)
    }

    /// For many keys: best in ascending order.
    pub fn walk(&self) -> Walk<'_, R> {
        Walk::new(self)
    }

    /// The first and the last key in a range; `None` if there are none.
    ///
    /// # Errors
    /// See `ReadError`.
    pub fn key_bounds(&self, keys: &KeyRange) -> Result<Option<[Vec<u8>; 2]>, ReadError> {
        let Some(first) = self.scan(keys.clone()).next() else { return Ok(None) };
        let first = first?.key.to_vec();
        let behind = match &keys.end {
            Some(end) => end.clone(),
            None => vec![0xFF; BOUND_BYTES_MAX],
        };
        // No entry is at this position, so that what begins with the bound itself lies behind it.
        let place = (behind.as_slice(), Lsn::INVALID);
        let cursor = Cursor::seek(&self.blocks, &self.root, place)?;
        let block = cursor.map(|cursor| cursor.block(&self.blocks, Keep::Yes)).transpose()?;
        let last = block.flatten().and_then(|block| {
            let (behind, _) = block.find(&behind);
            Some(block.key(behind.checked_sub(1)?).to_vec())
        });
        // The first one is there, whatever the index says.
        Ok(Some([first.clone(), last.filter(|last| *last > first).unwrap_or(first)]))
    }

    /// Whether there can be a version of `key` at or before `lsn_max`.
    pub(crate) fn may_have(&self, key: &[u8], lsn_max: Lsn) -> bool {
        let summary = &self.footer.summary;
        summary.keys.contains(key)
            && summary.entry_lsns.as_ref().is_some_and(|lsns| *lsns.start() <= lsn_max)
    }

    /// All entries with keys in `keys`, by key and then by position. Blocks that were read are not put
    /// into the cache.
    pub fn scan(&self, keys: KeyRange) -> Scan<'_, R> {
        Scan::new(self, keys)
    }
}
