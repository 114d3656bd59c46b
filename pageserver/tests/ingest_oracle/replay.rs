//! The simplest storage that can carry out changes, and its comparison with a data directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bytes::Bytes;
use pageserver::ingest::{Change, changes_of, native};
use pageserver::key::PageKey;
use postgres_formats::checkpoint::{CheckPoint, CheckpointState};
use postgres_formats::control_file::ControlFile;
use postgres_formats::lsn::{SegmentNumber, WalSegmentSize};
use postgres_formats::relpath::{TABLESPACE_VERSION_DIRECTORY, parse_relation_path, relation_path};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH, ReplicationOrigins};
use postgres_formats::slru::{SLRU_PAGES_PER_SEGMENT, segment_file_name};
use postgres_formats::wal::{DecodedRecord, WalRecord, WalStreamDecoder, rmgr};
use postgres_formats::{
    BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag, SlruKind, TransactionId,
};
use walredo_pool::CustomManagers;

const SEGMENT_PAGES: u32 = 131_072;

/// Contents of visibility maps, of init forks that are logged as images, and of the commit log and
/// multitransactions; of everything else only that it exists, and how large it is.
#[derive(Default)]
pub struct Storage {
    pub pages: BTreeMap<PageKey, PageImage>,
    pub forks: BTreeMap<RelTag, u32>,
    pub databases: BTreeSet<(Oid, Oid)>,
    /// Where each is.
    pub tablespaces: BTreeMap<Oid, Bytes>,
    pub maps: BTreeMap<(Oid, Oid), Bytes>,
    pub prepared: BTreeMap<TransactionId, Bytes>,
    /// Databases created with the strategy `wal_log`.
    page_by_page: BTreeSet<(Oid, Oid)>,
    pub origins: ReplicationOrigins,
    pub state: CheckpointState,
    start: Lsn,
    seg_size: Option<WalSegmentSize>,
    pub native_kinds: BTreeSet<(u8, u8)>,
    pub change_kinds: BTreeSet<String>,
    pub truncated: BTreeSet<SlruKind>,
    pub shutdowns: Vec<Shutdown>,
}

/// A shutdown checkpoint record and the state just before it.
pub struct Shutdown {
    pub before: CheckPoint,
    pub record: CheckPoint,
}

impl Storage {
    /// A cleanly stopped data directory.
    pub fn load(pgdata: impl AsRef<Path>) -> Storage {
        let pgdata = pgdata.as_ref();
        let mut storage = Storage::default();
        let control = ControlFile::decode(&fs::read(pgdata.join("global/pg_control")).unwrap());
        let control = control.unwrap();
        storage.start = control.check_point;
        storage.seg_size = Some(control.xlog_seg_size);
        storage.state.checkpoint = control.check_point_copy;
        storage.state.parameters = control.parameters;

        let shared = (Oid::GLOBAL_TABLESPACE, Oid::INVALID);
        let mut folders = vec![("global".to_owned(), shared)];
        for name in names(&pgdata.join("base")) {
            // Not a database: the folder of temporary files.
            let Ok(number) = name.parse() else { continue };
            let database = (Oid::DEFAULT_TABLESPACE, Oid(number));
            folders.push((format!("base/{name}"), database));
            storage.databases.insert(database);
        }
        for tablespace in names(&pgdata.join("pg_tblspc")) {
            let spc = Oid(tablespace.parse().unwrap());
            let link = pgdata.join("pg_tblspc").join(&tablespace);
            // A folder in place, instead of a link to one elsewhere, has no location.
            let location = fs::read_link(&link).unwrap_or_default().into_os_string();
            storage.tablespaces.insert(spc, location.into_encoded_bytes().into());
            let folder = format!("pg_tblspc/{tablespace}/{TABLESPACE_VERSION_DIRECTORY}");
            for name in names(&pgdata.join(&folder)) {
                let Ok(number) = name.parse() else { continue };
                folders.push((format!("{folder}/{name}"), (spc, Oid(number))));
                storage.databases.insert((spc, Oid(number)));
            }
        }
        for (folder, database) in folders {
            storage.load_relations(pgdata, &folder);
            // Only where the database is at home.
            if let Ok(map) = fs::read(pgdata.join(&folder).join("pg_filenode.map")) {
                storage.maps.insert(database, map.into());
            }
        }
        for kind in SlruKind::ALL {
            for name in names(&pgdata.join(kind.dir())) {
                let segment = u32::from_str_radix(&name, 16).unwrap();
                let path = pgdata.join(kind.dir()).join(&name);
                for (index, page) in (0u32..).zip(read_pages(&path)) {
                    let page_number = segment * SLRU_PAGES_PER_SEGMENT + index;
                    storage.pages.insert(PageKey::Slru { kind, page: page_number }, page);
                }
            }
        }
        for name in names(&pgdata.join("pg_twophase")) {
            let xid = TransactionId(u32::from_str_radix(&name, 16).unwrap());
            let mut data = fs::read(pgdata.join("pg_twophase").join(&name)).unwrap();
            data.truncate(data.len() - 4);
            storage.prepared.insert(xid, data.into());
        }
        // A new cluster does not have it yet.
        if let Ok(file) = fs::read(pgdata.join(REPLICATION_ORIGINS_PATH)) {
            storage.origins = replication_origins::decode(&file).unwrap();
        }
        storage
    }

    fn load_relations(&mut self, pgdata: &Path, folder: &str) {
        for name in names(&pgdata.join(folder)) {
            let path = format!("{folder}/{name}");
            // Other files, and those of temporary relations.
            let Ok(file) = parse_relation_path(&path) else { continue };
            let full = pgdata.join(&path);
            let first = file.segment * SEGMENT_PAGES;
            let end = first + (fs::metadata(&full).unwrap().len() / BLCKSZ as u64) as u32;
            let size = self.forks.entry(file.tag).or_default();
            *size = end.max(*size);
            if matches!(file.tag.fork, ForkNumber::Vm | ForkNumber::Init) {
                for (block, page) in (first..).zip(read_pages(&full)) {
                    let block = BlockNumber(block);
                    self.pages.insert(PageKey::Rel { rel: file.tag, block }, page);
                }
            }
        }
    }

    /// Carries out all WAL since the checkpoint that was loaded.
    pub fn replay(&mut self, pgdata: impl AsRef<Path>) {
        self.replay_and_look(pgdata, |_, _| ());
    }

    /// The same; shows itself as it is before each record but the first, and that record.
    pub fn replay_and_look(
        &mut self,
        pgdata: impl AsRef<Path>,
        mut look: impl FnMut(&Storage, &WalRecord),
    ) {
        let seg_size = self.seg_size.unwrap();
        let mut decoder = WalStreamDecoder::new(self.start, seg_size, None);
        let mut number = self.start.segment(seg_size);
        let mut position = self.start;
        let mut last = self.start;
        'segments: loop {
            let path = pgdata.as_ref().join("pg_wal").join(number.file_name(1, seg_size));
            let Ok(segment) = fs::read(path) else { break };
            let skip = position.segment_offset(seg_size) as usize;
            decoder.feed(position, &segment[skip..]).unwrap();
            loop {
                match decoder.next_record() {
                    Ok(Some(record)) => {
                        last = record.start;
                        if last != self.start {
                            look(self, &record);
                        }
                        self.replay_record(&record);
                    }
                    Ok(None) => break,
                    Err(error) if error.is_end_of_wal() => break 'segments,
                    // A recycled segment has old pages behind the end.
                    Err(error) if error.lsn >= last => break 'segments,
                    Err(error) => panic!("{error}"),
                }
            }
            number = SegmentNumber(number.0 + 1);
            position = number.start(seg_size);
        }
        let control = fs::read(pgdata.as_ref().join("global/pg_control")).unwrap();
        let control = ControlFile::decode(&control).unwrap();
        assert_eq!(last, control.check_point, "the WAL was not read to its end");
        assert_eq!(self.state.prev_record, control.check_point);
        assert_eq!(self.state.checkpoint, control.check_point_copy);
        assert_eq!(self.state.parameters, control.parameters);
    }

    fn replay_record(&mut self, rec: &WalRecord) {
        let dec = DecodedRecord::parse(&rec.bytes).unwrap();
        let info = dec.header.rmgr_info();
        let before = self.state;
        self.state.observe(&dec, rec).unwrap();
        let is_shutdown = (dec.header.rmid, info) == (rmgr::XLOG, rmgr::xlog::CHECKPOINT_SHUTDOWN);
        if is_shutdown && rec.start != self.start {
            let before = before.checkpoint;
            self.shutdowns.push(Shutdown { before, record: self.state.checkpoint });
        }
        let changes = changes_of(rec, &dec, CustomManagers::default()).unwrap();
        for change in changes.list {
            let name = format!("{change:?}");
            let name = name.split([' ', '(']).next().unwrap();
            if !self.change_kinds.contains(name) {
                self.change_kinds.insert(name.to_owned());
            }
            self.carry_out(rec, &dec, change, before);
        }
    }

    fn carry_out(
        &mut self,
        rec: &WalRecord,
        dec: &DecodedRecord,
        change: Change,
        before: CheckpointState,
    ) {
        let tracked = before.parameters.track_commit_timestamp;
        match change {
            Change::CommitTimestamps { page } => {
                let key = PageKey::Slru { kind: SlruKind::CommitTs, page };
                if tracked {
                    self.native_page(rec, dec, key, false);
                }
            }
            Change::Parameters(parameters) => match (tracked, parameters.track_commit_timestamp) {
                (false, true) => {
                    let page = SlruKind::CommitTs.page_of(before.checkpoint.next_xid.xid().0);
                    let key = PageKey::Slru { kind: SlruKind::CommitTs, page };
                    self.native_page(rec, dec, key, true);
                }
                (true, false) => self.pages.retain(|key, _| {
                    !matches!(key, PageKey::Slru { kind: SlruKind::CommitTs, .. })
                }),
                _ => {}
            },
            Change::Page { rel, block, will_init } => {
                self.extend(rel, block);
                let key = PageKey::Rel { rel, block };
                if rel.fork == ForkNumber::Vm {
                    let base = self.pages.remove(&key).filter(|_| !will_init);
                    let page = redo_of_map(rec, dec, rel, block, base);
                    self.pages.insert(key, page);
                } else if rel.fork == ForkNumber::Init {
                    self.pages.remove(&key);
                    let image = image_of(rec, dec, rel, block);
                    self.pages.extend(image.map(|page| (key, page)));
                }
            }
            Change::NativePage { key, will_init, must_exist } => {
                let exists = match key {
                    PageKey::Rel { rel, block } => {
                        self.forks.get(&rel).is_some_and(|&size| block.0 < size)
                    }
                    PageKey::Slru { .. } => self.pages.contains_key(&key),
                };
                if must_exist && !exists {
                    return;
                }
                self.native_page(rec, dec, key, will_init);
            }
            Change::RelCreate { rel } => {
                self.forks.entry(rel).or_default();
            }
            Change::RelTruncate { rel, nblocks } => {
                if let Some(size) = self.forks.get_mut(&rel) {
                    *size = nblocks.0.min(*size);
                    self.pages.retain(|key, _| match *key {
                        PageKey::Rel { rel: r, block } => r != rel || block < nblocks,
                        PageKey::Slru { .. } => true,
                    });
                }
            }
            Change::RelDrop { rel } => self.retain_relations(|r| r.locator() != rel),
            Change::DbCreate { spc, db } => {
                self.databases.insert((spc, db));
                if dec.header.rmgr_info() == rmgr::dbase::CREATE_WAL_LOG {
                    self.page_by_page.insert((spc, db));
                }
            }
            Change::DbCopy { from, to } => self.copy_database(from, to),
            Change::DbDrop { spc, db } => {
                self.databases.remove(&(spc, db));
                self.maps.remove(&(spc, db));
                self.retain_relations(|r| (r.spc, r.db) != (spc, db));
            }
            Change::TablespaceCreate { spc, location } => {
                assert!(self.tablespaces.insert(spc, location).is_none());
            }
            Change::TablespaceDrop { spc } => {
                self.tablespaces.remove(&spc).unwrap();
                self.databases.retain(|database| database.0 != spc);
                // The folders had to be empty, or the server would not have done it.
                assert!(self.forks.keys().all(|rel| rel.spc != spc));
            }
            Change::RelMap { spc, db, map } => {
                self.maps.insert((spc, db), map);
            }
            Change::SlruTruncate(truncation) => {
                self.truncated.insert(truncation.kind);
                let newest = (truncation.kind == SlruKind::Clog).then(|| {
                    truncation.kind.page_of(before.checkpoint.next_xid.xid().0.wrapping_sub(1))
                });
                self.pages.retain(|key, _| match *key {
                    PageKey::Slru { kind, page } if kind == truncation.kind => {
                        !truncation.removes(page / SLRU_PAGES_PER_SEGMENT, newest)
                    }
                    _ => true,
                });
            }
            Change::TwoPhasePrepare { xid, data } => {
                self.prepared.insert(xid, data);
            }
            Change::TwoPhaseFinish { xid } => {
                self.prepared.remove(&xid).unwrap();
            }
            Change::OriginProgress { origin, remote_lsn, force } => {
                let known = self.origins.entry(origin).or_insert(remote_lsn);
                *known = if force { remote_lsn } else { remote_lsn.max(*known) };
            }
            Change::OriginDrop { origin } => {
                self.origins.remove(&origin);
            }
            Change::XactEnd { time, .. } => assert!(time > 0),
        }
    }

    fn native_page(&mut self, rec: &WalRecord, dec: &DecodedRecord, key: PageKey, will_init: bool) {
        let base = self.pages.get(&key).filter(|_| !will_init).cloned();
        let mut page = base.unwrap_or_else(PageImage::zeroed);
        native::apply(rec, dec, &key, &mut page).unwrap();
        self.pages.insert(key, page);
        let opmask = match dec.header.rmid {
            rmgr::HEAP | rmgr::HEAP2 | rmgr::XACT => 0x70,
            _ => 0xF0,
        };
        self.native_kinds.insert((dec.header.rmid, dec.header.info & opmask));
    }

    fn extend(&mut self, rel: RelTag, block: BlockNumber) {
        let size = self.forks.entry(rel).or_default();
        *size = (block.0 + 1).max(*size);
    }

    fn retain_relations(&mut self, keep: impl Fn(RelTag) -> bool) {
        self.forks.retain(|&rel, _| keep(rel));
        self.pages.retain(|key, _| match *key {
            PageKey::Rel { rel, .. } => keep(rel),
            PageKey::Slru { .. } => true,
        });
    }

    fn copy_database(&mut self, from: (Oid, Oid), to: (Oid, Oid)) {
        let moved = |rel: RelTag| {
            ((rel.spc, rel.db) == from).then_some(RelTag { spc: to.0, db: to.1, ..rel })
        };
        let forks = self.forks.iter().filter_map(|(&rel, &size)| Some((moved(rel)?, size)));
        let forks: Vec<_> = forks.collect();
        self.forks.extend(forks);
        let pages = self.pages.iter().filter_map(|(key, page)| match *key {
            PageKey::Rel { rel, block } => {
                Some((PageKey::Rel { rel: moved(rel)?, block }, page.clone()))
            }
            PageKey::Slru { .. } => None,
        });
        let pages: Vec<_> = pages.collect();
        self.pages.extend(pages);
        if self.page_by_page.contains(&from) {
            self.page_by_page.insert(to);
        }
        if let Some(map) = self.maps.get(&from) {
            self.maps.insert(to, map.clone());
        }
    }

    /// Everything in which the data directory of the cleanly stopped server differs.
    pub fn differences(&self, pgdata: impl AsRef<Path>) -> Vec<String> {
        let pgdata = pgdata.as_ref();
        let disk = Storage::load(pgdata);
        let mut found = Vec::new();
        // Outside a database's home its folder has no record: it is made for the first relation.
        let mut databases = self.databases.clone();
        databases.extend(disk.databases.iter().filter(|&tag| !disk.maps.contains_key(tag)));
        if databases != disk.databases {
            found.push(format!("databases {:?}, on disk {:?}", self.databases, disk.databases));
        }
        if self.tablespaces != disk.tablespaces {
            let (ours, theirs) = (&self.tablespaces, &disk.tablespaces);
            found.push(format!("tablespaces {ours:?}, on disk {theirs:?}"));
        }
        if self.prepared != disk.prepared {
            let ours = self.prepared.keys();
            found.push(format!("prepared {ours:?}, on disk {:?}", disk.prepared.keys()));
        }
        if self.origins != disk.origins {
            found.push(format!("origins {:?}, on disk {:?}", self.origins, disk.origins));
        }
        found.extend(map_differences("relation map", &self.maps, &disk.maps));
        self.compare_relations(pgdata, &disk, &mut found);
        self.compare_pages(&disk, &mut found);
        found
    }

    fn compare_relations(&self, pgdata: &Path, disk: &Storage, found: &mut Vec<String>) {
        // Only the main and init forks: the maps are extended without a record. Of unlogged
        // relations, the init fork only.
        let logged = |storage: &Storage| {
            let rels = storage.forks.iter().filter(|&(rel, _)| match rel.fork {
                ForkNumber::Main => !disk.forks.contains_key(&rel.locator().fork(ForkNumber::Init)),
                ForkNumber::Init => true,
                ForkNumber::Fsm | ForkNumber::Vm => false,
            });
            rels.map(|(&rel, &size)| (rel, size)).collect::<BTreeMap<_, _>>()
        };
        let (ours, theirs) = (logged(self), logged(disk));
        for rel in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            match (ours.get(rel), theirs.get(rel)) {
                (Some(&size), Some(&on_disk)) if size <= on_disk => {
                    // The server extends relations without a record, before it uses the pages.
                    let path = pgdata.join(relation_path(*rel, 0));
                    let extra = read_pages(&path).into_iter().skip(size as usize);
                    if extra.into_iter().any(|page| page.lsn().is_valid()) {
                        found.push(format!("{rel} has {size} pages, on disk {on_disk}"));
                    }
                }
                (size, on_disk) => {
                    found.push(format!("{rel} has {size:?} pages, on disk {on_disk:?}"));
                }
            }
        }
    }

    fn compare_pages(&self, disk: &Storage, found: &mut Vec<String>) {
        let zero = PageImage::zeroed();
        let is_unlogged = |key: PageKey| match key {
            PageKey::Rel { rel, .. } => {
                disk.forks.contains_key(&rel.locator().fork(ForkNumber::Init))
            }
            PageKey::Slru { .. } => false,
        };
        for &key in self.pages.keys().chain(disk.pages.keys()).collect::<BTreeSet<_>>() {
            // The free space map is not logged, its content cannot be compared.
            let is_fsm = matches!(key, PageKey::Rel { rel, .. } if rel.fork == ForkNumber::Fsm);
            if is_fsm || is_unlogged(key) {
                continue;
            }
            let ours = self.pages.get(&key).unwrap_or(&zero);
            let theirs = disk.pages.get(&key).unwrap_or(&zero);
            // Headers of the maps have LSNs and checksums that PostgreSQL sets at other moments.
            let skip = if matches!(key, PageKey::Rel { .. }) { 24 } else { 0 };
            let byte = (skip..BLCKSZ).find(|&at| {
                ours[at] != theirs[at]
                    && !self.is_end_of_offsets(key, at, theirs)
                    && !self.is_lost_in_copying(key, ours[at], theirs[at])
            });
            if let Some(at) = byte {
                let (a, b) = (ours[at], theirs[at]);
                found.push(format!("{key} at {at}: {a:#04x}, on disk {b:#04x}"));
            }
        }
        for kind in SlruKind::ALL {
            let (ours, theirs) = (self.segments(kind), disk.segments(kind));
            if ours != theirs {
                found.push(format!("segments of {kind} {ours:?}, on disk {theirs:?}"));
            }
        }
    }

    /// Before 15.16, PostgreSQL did not set where the last multitransaction's members end.
    fn is_end_of_offsets(&self, key: PageKey, at: usize, theirs: &PageImage) -> bool {
        let next = self.state.checkpoint.next_multi.0;
        let kind = SlruKind::MultixactOffsets;
        let place = (next % kind.entries_per_page() * 4) as usize;
        key == PageKey::Slru { kind, page: kind.page_of(next) }
            && (place..place + 4).contains(&at)
            && theirs[place..place + 4] == [0; 4]
    }

    /// `CREATE DATABASE` with the strategy `wal_log` logs visibility maps as if their pages had the
    /// standard layout, so that the images have a hole where the bits are: a standby or a recovered
    /// server has none of them. Bits may be missing, but none may be there too many.
    fn is_lost_in_copying(&self, key: PageKey, ours: u8, theirs: u8) -> bool {
        match key {
            PageKey::Rel { rel, .. } => {
                self.page_by_page.contains(&(rel.spc, rel.db)) && ours & !theirs == 0
            }
            PageKey::Slru { .. } => false,
        }
    }

    fn segments(&self, kind: SlruKind) -> BTreeSet<String> {
        let pages = self.pages.keys().filter_map(|key| match *key {
            PageKey::Slru { kind: k, page } if k == kind => Some(page),
            _ => None,
        });
        pages.map(|page| segment_file_name(page / SLRU_PAGES_PER_SEGMENT)).collect()
    }
}

fn map_differences(
    what: &str,
    ours: &BTreeMap<(Oid, Oid), Bytes>,
    theirs: &BTreeMap<(Oid, Oid), Bytes>,
) -> Vec<String> {
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let different = keys.into_iter().filter(|&key| ours.get(key) != theirs.get(key));
    different.map(|key| format!("{what} of {key:?}")).collect()
}

/// The page as the record has it, whole.
fn image_of(
    rec: &WalRecord,
    dec: &DecodedRecord,
    rel: RelTag,
    block: BlockNumber,
) -> Option<PageImage> {
    let reference = dec.blocks.iter().find(|b| b.rel == rel && b.block == block).unwrap();
    let image = reference.image.as_ref().filter(|image| image.apply);
    image.map(|image| image.restore(rec.end).unwrap())
}

/// PostgreSQL's redo of a page of a visibility map: an image, or bits that are set.
fn redo_of_map(
    rec: &WalRecord,
    dec: &DecodedRecord,
    rel: RelTag,
    block: BlockNumber,
    base: Option<PageImage>,
) -> PageImage {
    if let Some(image) = image_of(rec, dec, rel, block) {
        return image;
    }
    let kind = (dec.header.rmid, dec.header.info & rmgr::heap::OPMASK);
    assert_eq!(kind, (rmgr::HEAP2, rmgr::heap2::VISIBLE));
    let heap_block = dec.block(1).unwrap().block.0;
    assert_eq!(heap_block / 32672, block.0);
    let in_page = heap_block % 32672;
    let mut page = base.unwrap_or_else(PageImage::zeroed);
    page[24 + in_page as usize / 4] |= (dec.main_data[4] & 0b11) << (in_page % 4 * 2);
    // PageInit: from here on the page is not new, so that clears set its LSN.
    page[12..20].copy_from_slice(&[24, 0, 0, 32, 0, 32, 4, 32]);
    page.set_lsn(rec.end);
    page
}

fn read_pages(path: &Path) -> Vec<PageImage> {
    let bytes = fs::read(path).unwrap();
    bytes.chunks_exact(BLCKSZ).map(|page| PageImage::from_slice(page).unwrap()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
