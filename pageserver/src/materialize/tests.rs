//! Tests on WAL made for the purpose. That stock PostgreSQL recovers from it is tested through
//! `zenith verify`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use postgres_formats::checkpoint::CheckPoint;
use postgres_formats::control_file::ControlFile;
use postgres_formats::lsn::{SegmentNumber, WalSegmentSize, XLOG_BLCKSZ};
use postgres_formats::slru::SlruKind;
use postgres_formats::wal::{
    DecodedRecord, PageHeader, RecordHeader, WalOrigin, WalRecord, WalStreamDecoder, WalWriter,
    rmgr,
};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Oid, PageImage, RelTag};
use postgres_formats::{Lsn, SystemId, TimelineId};

use super::base::{self, Image};
use super::begin;
use super::lineage::{BaseImage, Lineage, Stretch};
use super::{MaterializeError, Materialized, wal};
use crate::cluster::Cluster;
use crate::layer::file::make_file;
use crate::layer::image::{ImageLayer, ImageLayerWriter, SmallFile};
use crate::layer::imaged::{ImageWriter, ImagedLayer, Things};
use crate::layer::source::LayerFiles;
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::wal::store::WalStore;

const SEGMENT_BYTES: u32 = 1 << 20;
/// Where the base image's checkpoint is: behind the long header of the first page of a segment.
const CHECKPOINT: Lsn = Lsn::new(SEGMENT_BYTES as u64 + 40);

struct Sample {
    dir: tempfile::TempDir,
    cluster: Cluster,
    stretches: Vec<Stretch>,
}

impl Sample {
    fn new() -> Sample {
        let mut control = ControlFile::for_new_cluster(SystemId(7));
        control.xlog_seg_size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
        let checkpoint = CheckPoint { this_tli: 1, prev_tli: 1, ..CheckPoint::default() };
        control.set_shut_down(CHECKPOINT, checkpoint);
        let cluster = Cluster::from_control_file(&control.encode()).unwrap();
        Sample { dir: tempfile::tempdir().unwrap(), cluster, stretches: Vec::new() }
    }

    fn origin(&self) -> WalOrigin {
        let Cluster { system_id, tli, segment_size, .. } = self.cluster;
        WalOrigin { system_id, tli, seg_size: segment_size }
    }

    /// A timeline whose WAL is what `writer` wrote, and from which the next is forked at `end`.
    fn add(&mut self, writer: &WalWriter, end: Option<Lsn>) {
        let wal_dir = self.dir.path().join(self.stretches.len().to_string());
        fs::create_dir(&wal_dir).unwrap();
        let store = WalStore::new(wal_dir.clone(), self.cluster.segment_size, self.cluster.tli);
        store.write(writer.start(), writer.bytes()).unwrap();
        self.stretches.push(Stretch { wal_dir, end });
    }

    fn lineage(&self) -> Lineage {
        let stretch = |s: &Stretch| Stretch { wal_dir: s.wal_dir.clone(), end: s.end };
        Lineage {
            stretches: self.stretches.iter().map(stretch).collect(),
            image: BaseImage::First(self.dir.path().to_owned()),
            start: CHECKPOINT,
            checkpoint: Some(CHECKPOINT),
            cluster: self.cluster.clone(),
        }
    }

    /// Writes the WAL up to `lsn`; gives where it ends, and the records that are in it.
    fn write(&self, lsn: Lsn) -> Result<(Lsn, Vec<WalRecord>), MaterializeError> {
        self.write_since(&self.lineage(), lsn, None).map(|(made, records)| (made.end, records))
    }

    fn write_since(
        &self,
        lineage: &Lineage,
        lsn: Lsn,
        since: Option<Lsn>,
    ) -> Result<(Materialized, Vec<WalRecord>), MaterializeError> {
        let into = self.dir.path().join("into");
        let _ = fs::remove_dir_all(&into);
        fs::create_dir(&into).unwrap();
        let made = wal::write(lineage, begin::choose(lineage, lsn, since)?, lsn, &into)?;
        let records = self.records(&into, made.begins);
        assert_eq!(records.last().unwrap().start, made.last_record);
        Ok((made, records))
    }

    /// Reads segments as PostgreSQL does, up to the first place where there is no record.
    fn records(&self, into: &std::path::Path, begins: Option<Lsn>) -> Vec<WalRecord> {
        let size = self.cluster.segment_size;
        let start = begins.unwrap_or(SegmentNumber(1).start(size));
        let mut decoder = WalStreamDecoder::new(start, size, Some(self.cluster.system_id));
        let mut names: Vec<_> = fs::read_dir(into).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        let mut records = Vec::new();
        for name in names {
            let bytes = fs::read(name).unwrap();
            assert_eq!(bytes.len() as u64, size.bytes());
            let from = decoder.expected_lsn();
            if records.is_empty() && begins.is_some() {
                self.check_lead_in(&bytes, start);
            }
            let skipped = from.segment_offset(size) as usize;
            decoder.feed(from, &bytes[skipped..]).unwrap();
            loop {
                match decoder.next_record() {
                    Ok(Some(record)) => records.push(record),
                    Ok(None) => break,
                    Err(error) => {
                        assert!(error.is_end_of_wal(), "{error}");
                        return records;
                    }
                }
            }
        }
        records
    }

    /// PostgreSQL looks at the headers of the segment and of the page that it begins on.
    fn check_lead_in(&self, segment: &[u8], start: Lsn) {
        let size = self.cluster.segment_size;
        for page in [start.segment(size).start(size), start.page_start()] {
            let header =
                PageHeader::decode(&segment[page.segment_offset(size) as usize..]).unwrap();
            assert_eq!(header.page_address, page);
            let is_first = start.page_offset() == page.page_header_size(size);
            assert!(!is_first || page != start.page_start() || header.remaining == 0);
        }
    }
}

fn header(rmid: u8, info: u8) -> RecordHeader {
    RecordHeader { tot_len: 0, xid: 0, prev: Lsn::INVALID, info, rmid, crc: 0 }
}

/// A record of `len` bytes in all that does nothing, with main data that end in zeros.
fn append_noop(writer: &mut WalWriter, len: usize) -> (Lsn, Lsn) {
    const NOOP: u8 = 0x20;
    let data = len - 24 - 5;
    let mut body = vec![254];
    body.extend_from_slice(&(data as u32).to_le_bytes());
    body.resize(5 + data, 0);
    writer.append(header(rmgr::XLOG, NOOP), &body)
}

#[test]
fn a_branch_that_begins_behind_a_full_page() {
    let mut sample = Sample::new();
    let start = SegmentNumber(1).start(sample.cluster.segment_size);
    let mut root = WalWriter::new(start, Lsn::INVALID, sample.origin());
    append_noop(&mut root, 120);
    let room = XLOG_BLCKSZ - root.position().page_offset();
    let (filler, end) = append_noop(&mut root, room as usize);
    assert_eq!(end.page_offset(), 0);
    // The root has nothing of the page on which the branch begins.
    let branch = end.normalized(sample.cluster.segment_size);
    sample.add(&root, Some(branch));
    let mut child = WalWriter::new(branch, filler, sample.origin());
    for _ in 0..40 {
        append_noop(&mut child, 30_000);
    }
    assert!(child.position() > SegmentNumber(2).start(sample.cluster.segment_size));
    sample.add(&child, None);

    let (end, records) = sample.write(child.position()).unwrap();
    assert_eq!((end, records.len()), (child.position(), 42));
    assert_eq!(records[2].start, branch);
    let (end, records) = sample.write(branch).unwrap();
    assert_eq!((end, records.len()), (branch, 2));
    // Of a record that ends in zeros nothing is left, however close to its end the LSN is.
    let (end, records) = sample.write(Lsn::new(child.position().as_u64() - 8)).unwrap();
    assert_eq!(records.len(), 41);
    assert_eq!(end, records[40].end);

    let beyond = child.position().checked_add(1000).unwrap();
    let error = sample.write(beyond).unwrap_err();
    assert!(matches!(error, MaterializeError::WalMissing { needed, .. } if needed == beyond));

    // Zeros that a page server without a clean end has left behind WAL are no part of it.
    for (stretch, end) in sample.stretches.iter().zip([root.position(), child.position()]) {
        let Cluster { segment_size, tli, .. } = sample.cluster;
        let store = WalStore::new(stretch.wal_dir.clone(), segment_size, tli);
        store.write(end, &[0; 3 * XLOG_BLCKSZ as usize]).unwrap();
    }
    for (lsn, count) in [(child.position(), 42), (branch, 2)] {
        let (end, records) = sample.write(lsn).unwrap();
        assert_eq!((end, records.len()), (lsn, count));
    }
    assert!(matches!(sample.write(beyond), Err(MaterializeError::Wal(_))));
}

#[test]
fn a_branch_replaces_what_the_ancestor_did_later() {
    let mut sample = Sample::new();
    let start = SegmentNumber(1).start(sample.cluster.segment_size);
    let mut root = WalWriter::new(start, Lsn::INVALID, sample.origin());
    append_noop(&mut root, 120);
    let (common, branch) = append_noop(&mut root, 9000);
    for _ in 0..50 {
        append_noop(&mut root, 50_000);
    }
    sample.add(&root, Some(branch));
    let mut child = WalWriter::new(branch, common, sample.origin());
    append_noop(&mut child, 777);
    sample.add(&child, None);
    let (end, records) = sample.write(child.position()).unwrap();
    assert_eq!(end, child.position());
    let lengths: Vec<usize> = records.iter().map(|record| record.bytes.len()).collect();
    assert_eq!(lengths, [120, 9000, 777]);
}

#[test]
fn recovery_begins_where_the_wal_does() {
    let mut sample = Sample::new();
    let size = sample.cluster.segment_size;
    let start = SegmentNumber(1).start(size);
    let mut root = WalWriter::new(start, Lsn::INVALID, sample.origin());
    let mut ends = Vec::new();
    for _ in 0..120 {
        ends.push(append_noop(&mut root, 30_000));
    }
    let fork = ends[100].1.normalized(size);
    sample.add(&root, Some(fork));
    let mut child = WalWriter::new(fork, ends[100].0, sample.origin());
    for _ in 0..60 {
        append_noop(&mut child, 30_000);
    }
    sample.add(&child, None);
    let (lineage, end) = (sample.lineage(), child.position());
    let remove = |stretch: usize, segment: u64| {
        let name = SegmentNumber(segment).file_name(1, size);
        fs::remove_file(sample.stretches[stretch].wal_dir.join(name)).unwrap();
    };
    let since = |lsn| sample.write_since(&lineage, end, Some(lsn));
    // All of it is there.
    assert_eq!(since(end).unwrap().0.begins, None);

    let begin = begin::choose(&lineage, end, Some(end)).unwrap();
    remove(0, 1);
    let error = wal::write(&lineage, begin, end, sample.dir.path()).unwrap_err();
    assert!(matches!(error, MaterializeError::RemovedMeanwhile(_)), "{error}");
    let second = SegmentNumber(2).start(size);
    let error = sample.write(end).unwrap_err();
    assert!(matches!(error, MaterializeError::WalRemoved { oldest, .. } if oldest == second));
    let (made, records) = since(CHECKPOINT).unwrap();
    let first = ends.iter().find(|(start, _)| *start >= second).unwrap().0;
    assert_eq!((made.begins, records[0].start), (Some(first), first));
    assert_eq!((made.end, made.last_record), (end, records.last().unwrap().start));
    // The parameters are those of where it begins.
    assert_eq!(made.tracks_commit_timestamps, None);
    // Pages can be asked for from later on only, in the middle of a record.
    let (made, records) = since(ends[70].0.saturating_add(8)).unwrap();
    assert_eq!((made.begins, records[0].start), (Some(ends[71].0), ends[71].0));

    // Of the segment in which the branch begins only the branch's own part is left.
    for segment in 2..=fork.segment(size).0 {
        remove(0, segment);
    }
    let (made, records) = since(CHECKPOINT).unwrap();
    assert_eq!((made.begins, records[0].start, records.len()), (Some(fork), fork, 60));
    // Up to there nothing can be verified.
    for lsn in [fork, ends[90].1] {
        let error = sample.write_since(&lineage, lsn, Some(CHECKPOINT)).unwrap_err();
        assert!(
            matches!(error, MaterializeError::OutOfReach { oldest, .. } if oldest == fork),
            "{error}"
        );
    }
    let error = since(end).unwrap_err();
    assert!(matches!(error, MaterializeError::OutOfReach { oldest, .. } if oldest == end));
}

#[test]
fn recovery_does_not_begin_with_a_record_that_gives_one_up() {
    let mut sample = Sample::new();
    let size = sample.cluster.segment_size;
    let begin = SegmentNumber(2).start(size);
    let mut root = WalWriter::new(begin, Lsn::INVALID, sample.origin());
    // `xl_overwrite_contrecord`: the LSN and a time.
    let body = [&[255, 16][..], &7u64.to_le_bytes(), &[0; 8]].concat();
    root.append(header(rmgr::XLOG, rmgr::xlog::OVERWRITE_CONTRECORD), &body);
    let (second, _) = append_noop(&mut root, 100);
    sample.add(&root, None);
    let lineage = sample.lineage();
    let (made, _) = sample.write_since(&lineage, root.position(), Some(CHECKPOINT)).unwrap();
    assert_eq!(made.begins, Some(second));
}

#[test]
fn tablespaces_stay_inside() {
    let mut sample = Sample::new();
    let start = SegmentNumber(1).start(sample.cluster.segment_size);
    let mut root = WalWriter::new(start, Lsn::INVALID, sample.origin());
    append_noop(&mut root, 120);
    // So that the record goes over the end of the segment, in the middle of the name.
    while root.position() < Lsn::new(2 * u64::from(SEGMENT_BYTES) - 20_000) {
        append_noop(&mut root, 4000);
    }
    let room = 2 * u64::from(SEGMENT_BYTES) - root.position().as_u64();
    // Two page headers lie between.
    append_noop(&mut root, room as usize - 2 * 24 - 40);
    let mut body = vec![255, 16];
    body.extend_from_slice(&16_400u32.to_le_bytes());
    body.extend_from_slice(b"/elsewhere\0\0");
    let (at, _) = root.append(header(rmgr::TBLSPC, rmgr::tblspc::CREATE), &body);
    assert!(at < Lsn::new(2 * u64::from(SEGMENT_BYTES)));
    assert!(root.position() > Lsn::new(2 * u64::from(SEGMENT_BYTES)));
    append_noop(&mut root, 100);
    sample.add(&root, None);

    let (_, records) = sample.write(root.position()).unwrap();
    let record = records.iter().find(|record| record.start == at).unwrap();
    let decoded = DecodedRecord::parse(&record.bytes).unwrap();
    let mut expected = 16_400u32.to_le_bytes().to_vec();
    expected.resize(16, 0);
    assert_eq!(decoded.main_data, Bytes::from(expected));
    assert_eq!(records.last().unwrap().bytes.len(), 100);
}

const LSN: Lsn = Lsn::new(0x0100_0028);
const DB: DbTag = DbTag { spc: Oid(1663), db: Oid(5) };

fn things() -> Things {
    let rel = |rel| ObjectTag::Rel(RelTag { spc: DB.spc, db: DB.db, rel, fork: ForkNumber::Main });
    let slru = ObjectTag::Slru { kind: SlruKind::Clog, segment: 7 };
    Things {
        databases: [DB].into(),
        rel_maps: [(DB, Bytes::from(vec![9; 512]))].into(),
        tablespaces: [(Oid(20_000), Bytes::new())].into(),
        two_phase: [(77, Bytes::from("prepared"))].into(),
        origins: [(3, Lsn::new(0x77))].into(),
        objects: [(rel(Oid(1259)), 3), (rel(Oid(1260)), 0), (slru, 1)].into(),
        ..Things::default()
    }
}

/// Block 1 of each object is zeros.
fn page(block: u32) -> PageImage {
    PageImage::from_slice(&[if block == 1 { 0 } else { 5 + block as u8 }; BLCKSZ]).unwrap()
}

fn write_first_format(path: &std::path::Path, things: &Things) {
    let mut out = ImageLayerWriter::create(path, LSN).unwrap();
    for (object, size) in &things.objects {
        out.begin_object(*object);
        (0..*size).for_each(|block| out.add_page(*object, &page(block)).unwrap());
    }
    for tag in &things.databases {
        out.add_small_file(SmallFile::Database(*tag), Bytes::new());
    }
    for (tag, map) in &things.rel_maps {
        out.add_small_file(SmallFile::RelMap(*tag), map.clone());
    }
    for (spc, location) in &things.tablespaces {
        out.add_small_file(SmallFile::Tablespace(*spc), location.clone());
    }
    for (xid, state) in &things.two_phase {
        out.add_small_file(SmallFile::TwoPhase(*xid), state.clone());
    }
    let origins = postgres_formats::replication_origins::encode(&things.origins);
    out.add_small_file(SmallFile::ReplicationOrigins, origins.into());
    out.finish().unwrap();
}

fn files(folder: &std::path::Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                found.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn both_formats_of_images_give_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let (things, owner) = (things(), TimelineId::from_bytes([1; 16]));
    let (first, layer) = (dir.path().join("first"), dir.path().join("layer"));
    write_first_format(&first, &things);
    make_file(&layer, BuildFailed::from, |out| {
        let mut out = ImageWriter::begin(out, owner, LSN, &things)?;
        for (object, size) in &things.objects {
            for block in 0..*size {
                let name = ObjectPage { object: *object, block: BlockNumber(block) };
                out.page(name, &page(block))?;
            }
        }
        Ok::<_, BuildFailed>(out.finish()?)
    })
    .unwrap();
    let size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    let layer = ImagedLayer::open(&layer, owner, size, &LayerFiles::new(1, 0)).unwrap();
    let images = [Image::First(ImageLayer::open(&first).unwrap()), Image::Layer(Box::new(layer))];
    let written = images.map(|image| {
        let into = tempfile::tempdir().unwrap();
        base::write(&image, into.path()).unwrap();
        files(into.path())
    });
    let [first, layer] = &written;
    assert_eq!(first, layer);
    let relation = first[&PathBuf::from("base/5/1259")].as_ref().unwrap();
    assert_eq!(relation[..], [page(0).to_vec(), page(1).to_vec(), page(2).to_vec()].concat());
}

type BuildFailed = Box<dyn std::error::Error>;
