//! `Source`: the raw WAL of a lineage as one row of bytes, as far as it is kept.

use postgres_formats::Lsn;
use postgres_formats::lsn::{SegmentNumber, XLOG_BLCKSZ};
use postgres_formats::wal::{
    PageHeader, WalDecodeError, WalDecodeErrorKind, WalOrigin, XLP_FIRST_IS_CONTRECORD,
};

use super::lineage::{Lineage, Stretch};
use super::{MaterializeError, io_error};
use crate::cluster::Cluster;
use crate::wal::store::WalStore;

/// The bytes of the lineage, in one row.
pub(super) struct Source<'l> {
    cluster: &'l Cluster,
    /// With where each begins and ends.
    pieces: Vec<(WalStore, Lsn, Lsn)>,
}

impl Source<'_> {
    /// Those from `start` to `end`.
    pub(super) fn open(lineage: &Lineage, start: Lsn, end: Lsn) -> Source<'_> {
        let cluster = &lineage.cluster;
        let mut from = start;
        let mut pieces = Vec::new();
        for Stretch { wal_dir, end: stretch_end } in &lineage.stretches {
            let store = WalStore::new(wal_dir.clone(), cluster.segment_size, cluster.tli);
            let to = stretch_end.map_or(end, |stretch_end| stretch_end.min(end));
            if from < to {
                pieces.push((store, from, to));
                from = to;
            }
        }
        Source { cluster, pieces }
    }

    /// The first position from which on all is there: WAL that is in layers may have been removed.
    pub(super) fn oldest(&self) -> Result<Lsn, MaterializeError> {
        let size = self.cluster.segment_size;
        let mut oldest = self.pieces.last().map_or(Lsn::INVALID, |(_, _, to)| *to);
        for (store, from, to) in self.pieces.iter().rev() {
            let segments = store.segments().map_err(io_error(store.dir()))?;
            let mut last = Lsn::new(to.as_u64().saturating_sub(1)).segment(size);
            let first = from.segment(size);
            if !segments.contains(&last) {
                // A timeline without WAL of its own, or one that ends where a segment does.
                oldest = oldest.min(*to);
                if last != first || to.page_start() > *from {
                    break;
                }
                oldest = *from;
                continue;
            }
            while last > first && segments.contains(&SegmentNumber(last.0 - 1)) {
                last = SegmentNumber(last.0 - 1);
            }
            oldest = last.start(size).max(*from);
            if last > first {
                break;
            }
        }
        Ok(oldest)
    }

    /// Start of the first record that begins in `segment`, or later if none does, up to `end`: a page's
    /// header says how much of an earlier record is left (`xlp_rem_len`, `access/xlog_internal.h`).
    pub(super) fn first_record(
        &self,
        mut segment: SegmentNumber,
        end: Lsn,
    ) -> Result<Lsn, MaterializeError> {
        let size = self.cluster.segment_size;
        loop {
            let bytes = self.segment(segment)?;
            let mut page = segment.start(size);
            segment = SegmentNumber(segment.0 + 1);
            let next_segment = segment.start(size);
            while page < next_segment && page < end {
                let rest = bytes.get(page.segment_offset(size) as usize..).unwrap_or_default();
                let header = PageHeader::decode(rest).map_err(|_| WalDecodeError {
                    lsn: page,
                    kind: WalDecodeErrorKind::EmptyPage,
                })?;
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

    /// Start of a record that is at or before `at`, as far as there is one from `oldest` on, which is
    /// this source's; else the first one there is.
    pub(super) fn record_before(
        &self,
        at: Lsn,
        oldest: Lsn,
        end: Lsn,
    ) -> Result<Lsn, MaterializeError> {
        let size = self.cluster.segment_size;
        let segment = at.max(oldest).segment(size);
        // Where not even a segment is whole the WAL of a timeline begins, and it does with a record.
        match segment.start(size) < oldest {
            true => Ok(oldest),
            false => self.first_record(segment, end),
        }
    }

    /// A whole segment, with zeros behind the end.
    pub(super) fn segment(&self, number: SegmentNumber) -> Result<Vec<u8>, MaterializeError> {
        let size = self.cluster.segment_size;
        let start = number.start(size);
        let end = start.saturating_add(size.bytes());
        let mut bytes = vec![0; size.bytes() as usize];
        for (store, from, to) in &self.pieces {
            let (first, last) = (start.max(*from), end.min(*to));
            if first >= last {
                continue;
            }
            let offset = |at: Lsn| at.distance_from(start).unwrap_or(0) as usize;
            let slot = bytes.get_mut(offset(first)..offset(last)).unwrap_or_default();
            let got = store.read(first, slot).map_err(io_error(store.dir()))?;
            let mut reached = first.saturating_add(got as u64);
            // Zeros may stand behind the end of WAL.
            let page = last.page_start().max(first);
            let is_empty = |at: Lsn| {
                let behind = bytes.get(offset(at)..offset(reached)).unwrap_or_default();
                behind.iter().all(|byte| *byte == 0)
            };
            if last.page_offset() <= last.page_start().page_header_size(size)
                && page < reached
                && is_empty(page)
            {
                reached = page;
            }
            if reached < last {
                self.add_page_header(store, &mut bytes, number, reached, last)?;
            }
        }
        Ok(bytes)
    }

    /// A timeline that ends with a full page has no header of the next one, and what is forked from
    /// it begins behind that header.
    fn add_page_header(
        &self,
        store: &WalStore,
        bytes: &mut [u8],
        number: SegmentNumber,
        reached: Lsn,
        needed: Lsn,
    ) -> Result<(), MaterializeError> {
        let size = self.cluster.segment_size;
        let page = needed.page_start();
        if reached < page || needed.page_offset() > page.page_header_size(size) {
            let dir = store.dir().to_owned();
            let segments = store.segments().map_err(io_error(&dir))?;
            // It goes from its beginning on.
            return Err(match segments.first().is_some_and(|first| *first > number) {
                true => MaterializeError::RemovedMeanwhile(reached),
                false => MaterializeError::WalMissing { dir, end: reached, needed },
            });
        }
        let Cluster { system_id, tli, .. } = *self.cluster;
        let header = WalOrigin { system_id, tli, seg_size: size }.page_header(page, 0).encode();
        let at = page.distance_from(number.start(size)).unwrap_or(0) as usize;
        if let Some(slot) = bytes.get_mut(at..at + header.len()) {
            slot.copy_from_slice(&header);
        }
        Ok(())
    }
}
