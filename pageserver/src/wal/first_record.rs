//! Where the first record begins in WAL of which what came before is gone.

use std::io;

use postgres_formats::Lsn;
use postgres_formats::lsn::{SegmentNumber, XLOG_BLCKSZ};
use postgres_formats::wal::{PageHeader, XLP_FIRST_IS_CONTRECORD};

use super::store::WalStore;
use crate::cluster::Cluster;

/// Room for the longest header of a page.
const HEADER_BYTES_MAX: usize = 64;

/// Start of the first record that begins in `segment`, or later if none does: a page's header says
/// how much of an earlier record is left (`xlp_rem_len`, `access/xlog_internal.h`).
///
/// # Errors
/// `InvalidData` where there is no page header of that cluster; `UnexpectedEof` if no record begins in what is there;
/// whatever reading gives.
pub fn first_record(
    store: &WalStore,
    segment: SegmentNumber,
    cluster: &Cluster,
) -> io::Result<Lsn> {
    let size = store.segment_size();
    let bad = |page: Lsn, what: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("at {page}: {what}"))
    };
    let mut page = segment.start(size);
    loop {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let want = usize::try_from(page.page_header_size(size)).unwrap_or(HEADER_BYTES_MAX);
        let bytes = bytes.get_mut(..want).unwrap_or_default();
        if store.read(page, bytes)? < want {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = PageHeader::decode_checked(bytes, page, size, Some(cluster.system_id))
            .map_err(|error| bad(page, error.to_string()))?;
        if header.tli != cluster.tli {
            return Err(bad(page, format!("it is of PostgreSQL's timeline {}", header.tli)));
        }
        let left = if header.has(XLP_FIRST_IS_CONTRECORD) { header.remaining } else { 0 };
        let behind = page.page_header_size(size) + u64::from(left);
        if behind < XLOG_BLCKSZ {
            return Ok(page.saturating_add(behind).align_up().normalized(size));
        }
        page = page.saturating_add(XLOG_BLCKSZ);
    }
}
