//! The raw WAL of a lineage as one stream of bytes, for whoever wants to look at every record.

use std::io::{self, Write};
use std::path::Path;

use postgres_formats::lsn::{SegmentNumber, WalSegmentSize, XLOG_BLCKSZ};
use postgres_formats::wal::{
    PageHeader, WalDecodeError, WalDecodeErrorKind, XLP_FIRST_IS_CONTRECORD,
};
use postgres_formats::{Lsn, SystemId, TimelineId};

use super::MaterializeError;
use super::lineage::Lineage;
use super::wal::Source;

/// Where a stream of WAL begins, and what a decoder has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawWal {
    /// Start of the first record; the first byte of the stream.
    pub start: Lsn,
    /// The cluster.
    pub system_id: SystemId,
    /// Size of its segments.
    pub segment_size: WalSegmentSize,
}

/// Writes the WAL of `timeline` and its ancestors up to `lsn`: from the first record of the segment
/// that `from` is in, by default from the base image on; from the first that is there, if some was removed. `begin` is told before the first byte.
///
/// # Errors
/// `MaterializeError`; what `out` says is one about `-`. So is WAL that is not there.
pub fn write_raw_wal<W: Write>(
    repository: &Path,
    timeline: TimelineId,
    from: Option<Lsn>,
    lsn: Lsn,
    out: &mut W,
    begin: impl FnOnce(&mut W, RawWal) -> io::Result<()>,
) -> Result<(), MaterializeError> {
    let lineage = Lineage::read(repository, timeline)?;
    let cluster = &lineage.cluster;
    let size = cluster.segment_size;
    let checkpoint_segment = cluster.control_file.check_point.segment(size).start(size);
    let from = from.unwrap_or(lineage.start).min(lsn);
    if from < lineage.start {
        return Err(MaterializeError::BeforeStart { lsn: from, start: lineage.start });
    }
    let source = Source::open(&lineage, checkpoint_segment, lsn);
    // What was removed is in layers.
    let from = from.max(source.oldest()?.min(lsn));
    let segment = from.segment(size);
    let start = if segment.start(size) <= lineage.start {
        lineage.start
    } else {
        first_record(&source, size, segment, lsn)?
    };
    let written = |source| MaterializeError::Io { path: "-".into(), source };
    begin(out, RawWal { start, system_id: cluster.system_id, segment_size: size })
        .map_err(written)?;
    let last = Lsn::new(lsn.as_u64().saturating_sub(1)).max(start).segment(size);
    for number in (start.segment(size).0..=last.0).map(SegmentNumber) {
        let bytes = source.segment(number)?;
        let begins = number.start(size);
        let offset = |at: Lsn| at.distance_from(begins).unwrap_or(0) as usize;
        let to = lsn.min(begins.saturating_add(size.bytes()));
        out.write_all(bytes.get(offset(start)..offset(to)).unwrap_or_default()).map_err(written)?;
    }
    out.flush().map_err(written)
}

/// Start of the first record that begins in `segment`, or later if none does: a page's header says
/// how much of an earlier record is left (`xlp_rem_len`, `access/xlog_internal.h`).
fn first_record(
    source: &Source<'_>,
    size: WalSegmentSize,
    mut segment: SegmentNumber,
    end: Lsn,
) -> Result<Lsn, MaterializeError> {
    loop {
        let bytes = source.segment(segment)?;
        let mut page = segment.start(size);
        segment = SegmentNumber(segment.0 + 1);
        let next_segment = segment.start(size);
        while page < next_segment && page < end {
            let rest = bytes.get(page.segment_offset(size) as usize..).unwrap_or_default();
            let header = PageHeader::decode(rest)
                .map_err(|_| WalDecodeError { lsn: page, kind: WalDecodeErrorKind::EmptyPage })?;
            let left = if header.has(XLP_FIRST_IS_CONTRECORD) { header.remaining } else { 0 };
            let behind = page.page_header_size(size) + u64::from(left);
            if behind < XLOG_BLCKSZ {
                return Ok(page.saturating_add(behind).align_up().normalized(size));
            }
            page = page.saturating_add(XLOG_BLCKSZ);
        }
        if page >= end {
            return Ok(end);
        }
    }
}
