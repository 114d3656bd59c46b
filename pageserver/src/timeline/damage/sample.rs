//! A timeline whose WAL is made here, small enough to be damaged in every byte.

mod records;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postgres_formats::checkpoint::{CheckPoint, CheckpointState};
use postgres_formats::control_file::ControlFile;
use postgres_formats::lsn::{SegmentNumber, WalSegmentSize};
use postgres_formats::slru::SlruKind;
use postgres_formats::wal::{RecordHeader, WalOrigin, WalWriter, rmgr};
use postgres_formats::{
    BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag, SystemId, TimelineId, page_checksum,
};
use walredo_pool::WalRedoConfig;

use crate::layer::freezer::{LayerOptions, LayerShared};
use crate::layer::image::ImageLayerWriter;
use crate::page_maker::PageMaker;
use crate::timeline::error::TimelineError;
use crate::timeline::manifest::{Ancestor, Layered, Manifest, Origin};
use crate::timeline::{PageRequest, Timeline};

pub(crate) use records::words;

pub(crate) const SEGMENT_BYTES: u32 = 1 << 20;
const XLOG_FPI: u8 = 0xB0;
const XLOG_NOOP: u8 = 0x20;
const XLOG_SMGR_TRUNCATE: u8 = 0x20;

pub(crate) fn rel() -> RelTag {
    RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main }
}

fn header(rmid: u8, info: u8) -> RecordHeader {
    RecordHeader { tot_len: 0, xid: 700, prev: Lsn::INVALID, info, rmid, crc: 0 }
}

fn layers_of_test() -> Arc<LayerShared> {
    LayerShared::start(LayerOptions::default(), &slog::Logger::root(slog::Discard, slog::o!()))
}

/// What makes pages that all come as images, so that no redo process is ever asked for.
pub(crate) fn pages_of_images() -> Arc<PageMaker> {
    let redo = WalRedoConfig {
        postgres_bin_dir: "/none".into(),
        module_path: "/none".into(),
        libraries: Vec::new(),
        work_dir: "/none".into(),
        control_file: Vec::new(),
        processes: 1,
        processes_min: 1,
        idle_after: Duration::MAX,
        account: None,
        request_timeout: Duration::from_secs(1),
    };
    PageMaker::new(1 << 20, redo, slog::Logger::root(slog::Discard, slog::o!()))
}

/// A folder with one root timeline, and the records its server has written.
pub(crate) struct Sample {
    pub dir: tempfile::TempDir,
    id: TimelineId,
    pub start: Lsn,
    state: CheckpointState,
    pub maker: Arc<PageMaker>,
    pub writer: WalWriter,
    /// Where each record ends, as the place where the next begins.
    pub ends: Vec<Lsn>,
}

impl Sample {
    /// History begins `before_segment_end` bytes before the end of the segment number 1.
    pub fn new(before_segment_end: u64) -> Sample {
        // What it takes to compute checksums is most of what it takes to make such pages.
        Sample::begin(before_segment_end, false)
    }

    /// The same in a cluster whose pages have checksums.
    pub fn with_checksums(before_segment_end: u64) -> Sample {
        Sample::begin(before_segment_end, true)
    }

    fn begin(before_segment_end: u64, checksums: bool) -> Sample {
        // In memory where that can be had: with a file system that syncs, what is done thousands of
        // times here would take minutes.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let dir = in_memory.or_else(|_| tempfile::tempdir()).unwrap();
        let mut control = ControlFile::for_new_cluster(SystemId(7));
        control.xlog_seg_size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
        let start = Lsn::new(2 * u64::from(SEGMENT_BYTES) - before_segment_end);
        let prev = Lsn::new(start.as_u64() - 32);
        let checkpoint = CheckPoint { this_tli: 1, prev_tli: 1, ..CheckPoint::default() };
        control.set_shut_down(prev, checkpoint);
        if !checksums {
            control.data_checksum_version = 0;
        }
        for folder in ["wal", "layers"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("pg_control"), control.encode()).unwrap();
        ImageLayerWriter::create(&dir.path().join("layers/image"), start)
            .unwrap()
            .finish()
            .unwrap();
        let maker = pages_of_images();
        let state = CheckpointState { checkpoint, prev_record: prev, ..CheckpointState::default() };
        let id = TimelineId::from_bytes([1; 16]);
        let writer = WalWriter::new(start, prev, origin(1, 7));
        Sample { dir, id, start, state, maker, writer, ends: Vec::new() }
    }

    /// Block 0 of the relation becomes a page of which `len` bytes are `content`.
    pub fn write_page(&mut self, content: u8, len: u16) -> Lsn {
        let body = page_image(content, len);
        self.add(rmgr::XLOG, XLOG_FPI, &body)
    }

    /// A change of block 0 that only a redo process can apply.
    pub fn write_change(&mut self) -> Lsn {
        // A block's header without image and data, as in `access/xlogrecord.h`.
        let mut body = vec![0, 0, 0, 0];
        let rel = rel();
        for number in [rel.spc.0, rel.db.0, rel.rel.0, 0] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        self.add(rmgr::GENERIC, 0, &body)
    }

    /// What another server writes that goes on at `start`, behind the record that begins at `prev`.
    pub fn going_on(start: Lsn, prev: Lsn) -> Sample {
        let mut sample = Sample::new(100);
        sample.start = start;
        sample.writer = WalWriter::new(start, prev, origin(1, 7));
        sample
    }

    /// A record that does nothing and is that long.
    pub fn write_noop(&mut self, len: usize) -> Lsn {
        let data = len - 24 - 5;
        let mut body = vec![254];
        body.extend_from_slice(&(data as u32).to_le_bytes());
        body.resize(5 + data, 0xA5);
        self.add(rmgr::XLOG, XLOG_NOOP, &body)
    }

    /// A record that is intact and cannot be made sense of.
    pub fn write_nonsense(&mut self) -> Lsn {
        self.add(rmgr::SMGR, XLOG_SMGR_TRUNCATE, &[255, 1, 0])
    }

    /// A record that says nothing.
    pub fn write_empty(&mut self, rmid: u8, info: u8) -> Lsn {
        self.add(rmid, info, &[255, 1, 0])
    }

    /// The WAL from `from` on.
    pub fn wal_from(&self, from: Lsn) -> &[u8] {
        &self.writer.bytes()[from.distance_from(self.start).unwrap() as usize..]
    }

    pub fn end(&self) -> Lsn {
        *self.ends.last().unwrap()
    }

    /// The end of the last record before `lsn`.
    pub fn good_before(&self, lsn: Lsn) -> Lsn {
        self.ends.iter().rev().copied().find(|end| *end <= lsn).unwrap_or(self.start)
    }

    pub fn manifest(&self) -> Manifest {
        let origin = Origin::ImageLayer("image".to_owned());
        Manifest {
            id: self.id,
            origin,
            start: self.start,
            state: self.state,
            state_is_complete: true,
            created: 0,
            detaching: false,
            layered: Layered::nothing(self.start, self.state),
        }
    }

    pub fn open(&self) -> Arc<Timeline> {
        self.open_with(LayerOptions::default())
    }

    pub fn open_with(&self, options: LayerOptions) -> Arc<Timeline> {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let layers = LayerShared::start(options, &log);
        let maker = self.maker.clone();
        Timeline::open(self.dir.path(), self.manifest(), None, maker, layers, &log).unwrap()
    }

    /// A branch at `at`, a record's end, without WAL of its own.
    pub fn open_branch(&self, parent: &Arc<Timeline>, at: Lsn, number: u8) -> Arc<Timeline> {
        self.try_open_branch(parent, at, number).unwrap()
    }

    /// The same, which may fail.
    pub fn try_open_branch(
        &self,
        parent: &Arc<Timeline>,
        at: Lsn,
        number: u8,
    ) -> Result<Arc<Timeline>, TimelineError> {
        let dir = self.dir.path().join(format!("branch{number}"));
        fs::create_dir_all(dir.join("wal")).unwrap();
        let manifest = Manifest {
            id: TimelineId::from_bytes([number; 16]),
            origin: Origin::Ancestor(Ancestor { timeline: self.id, lsn: at }),
            start: at,
            state: self.state,
            state_is_complete: true,
            created: 0,
            detaching: false,
            layered: Layered::nothing(at, self.state),
        };
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let maker = self.maker.clone();
        Timeline::open(&dir, manifest, Some(parent.clone()), maker, layers_of_test(), &log)
    }

    /// Gives a timeline all the WAL from where it wants it, and has it synced.
    pub fn give(&self, timeline: &Timeline) {
        let from = timeline.restart_receiving().unwrap();
        timeline.receive_wal(from, self.wal_from(from)).unwrap();
        timeline.sync_wal().unwrap();
    }

    /// The timeline with everything on disk, closed again.
    pub fn on_disk(self) -> Sample {
        self.give(&self.open());
        self
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        let size = origin(1, 7).seg_size;
        self.dir.path().join("wal").join(SegmentNumber(number).file_name(1, size))
    }

    /// The file and the place in it of a position.
    pub fn place(&self, lsn: Lsn) -> (PathBuf, usize) {
        let size = origin(1, 7).seg_size;
        (self.segment(lsn.segment(size).0), lsn.segment_offset(size) as usize)
    }

    /// What each record up to `upto` left of block 0; pages are not taken from the cache.
    pub fn pages(&self, timeline: &Arc<Timeline>, upto: Lsn) -> Vec<Option<Vec<u8>>> {
        let ends = self.ends.iter().filter(|end| **end <= upto);
        ends.map(|end| page(timeline, *end)).collect()
    }

    /// All files in the WAL's folder.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        files_in(&self.dir.path().join("wal"))
    }
}

pub(crate) fn files_in(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entry = |path: PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
    };
    let mut files: Vec<_> =
        fs::read_dir(dir).unwrap().map(|found| entry(found.unwrap().path())).collect();
    files.sort();
    files
}

pub(crate) fn origin(tli: u32, system_id: u64) -> WalOrigin {
    let seg_size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    WalOrigin { system_id: SystemId(system_id), tli, seg_size }
}

/// The data directory of a stopped server whose last record begins at `at`, and where the next one begins. Block
/// 0 of the relation is all `content`.
pub(crate) fn data_directory(into: &Path, at: Lsn, content: u8) -> Lsn {
    let mut control = ControlFile::for_new_cluster(SystemId(7));
    let size = WalSegmentSize::new(SEGMENT_BYTES).unwrap();
    control.xlog_seg_size = size;
    let checkpoint = CheckPoint { this_tli: 1, prev_tli: 1, ..CheckPoint::default() };
    control.set_shut_down(at, checkpoint);
    let slrus = SlruKind::ALL.map(SlruKind::dir);
    for folder in ["global", "base/5", "pg_tblspc", "pg_twophase", "pg_wal"].iter().chain(&slrus) {
        fs::create_dir_all(into.join(folder)).unwrap();
    }
    fs::write(into.join("global/pg_control"), control.encode()).unwrap();
    let mut page = PageImage::zeroed();
    page.fill(content);
    page_checksum::set_checksum(&mut page, BlockNumber(0));
    fs::write(into.join("base/5").join(rel().rel.to_string()), &page[..]).unwrap();
    let mut writer = WalWriter::new(at, Lsn::new(at.as_u64() - 32), origin(1, 7));
    let (_, end) = writer.append(header(rmgr::XLOG, XLOG_NOOP), &[]);
    let mut segment = vec![0; at.segment_offset(size) as usize];
    segment.extend_from_slice(writer.bytes());
    fs::write(into.join("pg_wal").join(at.segment(size).file_name(1, size)), segment).unwrap();
    end.normalized(size)
}

/// Block 0 at `lsn`, if it is there then.
pub(crate) fn page(timeline: &Arc<Timeline>, lsn: Lsn) -> Option<Vec<u8>> {
    let request = PageRequest::rel(rel(), BlockNumber(0), lsn);
    timeline.get_page(request, Duration::ZERO).ok().map(|page| page[..].to_vec())
}

/// The body of a record with an image of block 0, all zeros but for the beginning.
fn page_image(content: u8, len: u16) -> Vec<u8> {
    const HAS_IMAGE: u8 = 0x10;
    const HAS_HOLE_AND_APPLIES: u8 = 3;
    let mut body = vec![0, HAS_IMAGE, 0, 0];
    let hole_offset = len;
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(&hole_offset.to_le_bytes());
    body.push(HAS_HOLE_AND_APPLIES);
    let rel = rel();
    for number in [rel.spc.0, rel.db.0, rel.rel.0, 0] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.resize(body.len() + usize::from(len), content);
    body
}
