//! The raw WAL of a lineage as one stream of bytes, for whoever wants to look at every record.

use std::io::{self, Write};
use std::path::Path;

use postgres_formats::lsn::{SegmentNumber, WalSegmentSize};
use postgres_formats::{Lsn, SystemId, TimelineId};

use super::MaterializeError;
use super::lineage::Lineage;
use super::source::Source;

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
    let from = from.unwrap_or(lineage.start).min(lsn);
    if from < lineage.start {
        return Err(MaterializeError::BeforeStart { lsn: from, start: lineage.start });
    }
    // What was removed is in layers.
    let oldest = Source::open(&lineage, lineage.wal_start(), lsn).oldest()?.min(lsn);
    let source = Source::open(&lineage, oldest, lsn);
    let start = match from.max(oldest).segment(size).start(size) <= lineage.start {
        true => lineage.start.max(oldest),
        false => source.record_before(from, oldest, lsn)?,
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
