//! The base backup at the end of every single record of a history, file by file, against the storage
//! of `replay`, which knows no LSNs and has carried out nothing but the records before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pageserver::basebackup::Form;
use pageserver::key::PageKey;
use pageserver::layer::import::DataDirectory;
use pageserver::repository::Repository;
use pageserver::timeline::Timeline;
use postgres_formats::checkpoint::{CheckPoint, CheckpointState};
use postgres_formats::control_file::{ClusterState, ControlFile};
use postgres_formats::page_checksum::{set_checksum, verify};
use postgres_formats::relpath::{database_path, parse_relation_path, relation_path};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH};
use postgres_formats::slru::SLRU_PAGES_PER_SEGMENT;
use postgres_formats::wal::{DecodedRecord, WalStreamDecoder, rmgr};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, TransactionId};
use postgres_testing::scratch_dir;
use rand::SeedableRng;

use crate::cluster::{self, ClusterExt};
use crate::replay::Storage;
use crate::small_workload::{after_crash, before, stretch};
use crate::stock::{self, Opened};
use crate::unpacked::{Unpacked, prepare};
use crate::workload::freeze_everything;

/// Small segments: each base backup has a whole one, and the history goes over the ends of many.
const SEGMENT_SIZE_MB: &str = "1";

/// More than the record of a checkpoint takes, page headers included.
const RECORD_SIZE_MAX: usize = 1024;
/// What the first compute begins with already has one.
const PREPARED_BEFORE: &str =
    "begin; insert into t values (0, 'before'); prepare transaction 'before'";

/// The folders of a new cluster that have the same name in every one (`initdb.c`), and those of
/// the parts of PostgreSQL that make theirs at start.
const FOLDERS: [&str; 22] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

#[test]
fn at_the_end_of_every_record() {
    let settings = "allow_in_place_tablespaces = on\nwal_level = logical\n";
    let args = ["--wal-segsize", SEGMENT_SIZE_MB];
    let mut cluster = cluster::init_with(&args, settings);
    cluster.start();
    before(&cluster);
    cluster.stop();
    // All of them are about to go over the end of a page, of a segment, and of all numbers.
    for id in [1_500_000_000, 3_000_000_000, u32::MAX] {
        cluster.reset_ids(id - 59, id - 9, id - 19);
        if id != u32::MAX {
            cluster.start();
            freeze_everything(&cluster);
            cluster.stop();
        }
    }
    cluster.start();
    cluster.each("postgres", &[PREPARED_BEFORE]);
    cluster.stop();
    let dir = scratch_dir("zenith-backups-");
    let main = "main".parse().unwrap();
    let id = Repository::init_from_pgdata(dir.path(), &cluster.data_dir(), &main).unwrap();
    let opened = stock::open(dir, 16 << 20);
    let timeline = opened.repository.timeline(id).unwrap();
    let mut storage = Storage::load(cluster.data_dir());

    cluster.start();
    let unfinished = stretch(&cluster);
    cluster.configure("track_commit_timestamp = on\nmax_connections = 55\n");
    cluster.crash();
    drop(unfinished);
    cluster.start();
    after_crash(&cluster);
    cluster.stop();

    let end = DataDirectory::open(&cluster.data_dir()).unwrap().end;
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    stock::receive(&timeline, &cluster, end, &mut rng);
    let mut at = None;
    let mut tar = Vec::new();
    let mut compared = 0;
    let mut branches = Vec::new();
    let mut seen = BTreeSet::new();
    storage.replay_and_look(cluster.data_dir(), |storage, next| {
        // The end of the record before, which is not where the next one begins if that page does.
        let lsn: Lsn = at.replace(next.end).unwrap_or(next.start);
        let backup = Unpacked::take(&timeline, lsn, Form::WholeSlrus, &mut tar);
        assert_eq!(backup.base, next.start, "at {lsn}");
        backup.compare(storage, lsn);
        for path in backup.files.keys() {
            let folder = path.split('/').next().unwrap();
            if !seen.contains(folder) {
                seen.insert(folder.to_owned());
            }
        }
        if compared % 10 == 0 {
            let stubs = Unpacked::take(&timeline, lsn, Form::Stubs, &mut tar);
            stubs.compare_stubs(&backup, &storage.state.checkpoint, lsn);
        }
        if compared % 150 == 0 {
            branches.push((lsn, backup));
        }
        compared += 1;
        // Within the record nothing of it has happened.
        let is_cut = next.start.page_start() != next.end.page_start();
        for within in [next.start.saturating_add(8), Lsn::new(next.end.as_u64() - 8)] {
            if is_cut && within < next.end {
                assert_eq!(
                    prepare(&timeline, within, Form::WholeSlrus).base_lsn(),
                    next.start,
                    "at {within}"
                );
            }
        }
    });
    Unpacked::take(&timeline, end, Form::WholeSlrus, &mut tar).compare(&storage, end);
    assert_eq!(storage.differences(cluster.data_dir()), Vec::<String>::new());
    println!("{compared} base backups compared");
    on_branches(opened, timeline, branches);
    assert!(compared > 1000, "only {compared} records");
    for folder in ["pg_twophase", "pg_commit_ts", "pg_multixact", "pg_tblspc", "pg_logical"] {
        assert!(seen.contains(folder), "never a file in {folder}");
    }
    for kind in
        ["RelDrop", "RelMap", "DbCopy", "DbCreate", "DbDrop", "TablespaceDrop", "Parameters"]
    {
        assert!(storage.change_kinds.contains(kind), "no {kind}");
    }
}

/// Branches give what their origin gave there, with everything that is known made anew from the disk.
fn on_branches(opened: Opened, timeline: Arc<Timeline>, backups: Vec<(Lsn, Unpacked)>) {
    let Opened { repository, maker, dir } = opened;
    for (number, (lsn, _)) in backups.iter().enumerate() {
        let name = format!("branch{number}").parse().unwrap();
        let point = format!("main@{lsn}").parse().unwrap();
        repository.create_branch(&name, &point, stock::TIMEOUT).unwrap();
    }
    drop((timeline, repository, maker));
    let opened = stock::open(dir, 1 << 20);
    let mut tar = Vec::new();
    for (number, (lsn, expected)) in backups.into_iter().enumerate() {
        let name = format!("branch{number}").parse().unwrap();
        let branch = opened.repository.branch(&name).unwrap();
        let timeline = opened.repository.timeline(branch.timeline).unwrap();
        let backup = Unpacked::take(&timeline, lsn, Form::WholeSlrus, &mut tar);
        assert!(backup == expected, "a branch at {lsn} has another base backup");
    }
}

impl Unpacked {
    /// Compares everything in it with what it has to be.
    fn compare(&self, storage: &Storage, lsn: Lsn) {
        let checkpoint = CheckPoint {
            redo: self.base,
            oldest_active_xid: TransactionId::INVALID,
            ..storage.state.checkpoint
        };
        self.compare_control_file(&storage.state, &checkpoint, lsn);
        self.compare_wal(&storage.state, &checkpoint, lsn);
        self.compare_init_forks(storage, lsn);
        let folders: BTreeSet<String> = expected_folders(storage);
        assert_eq!(self.folders, folders, "folders at {lsn}");

        let mut expected = expected_files(storage);
        let origins = &self.files[REPLICATION_ORIGINS_PATH];
        assert_eq!(replication_origins::decode(origins).unwrap(), storage.origins, "at {lsn}");
        let list = String::from_utf8(self.files["zenith.relations"].clone()).unwrap();
        let mut lines: Vec<&str> = list.lines().collect();
        lines.sort_unstable();
        let theirs = expected_list(storage);
        if lines != theirs {
            let ours: BTreeSet<&str> = lines.iter().copied().collect();
            let theirs: BTreeSet<&str> = theirs.iter().map(String::as_str).collect();
            let only: Vec<_> = ours.symmetric_difference(&theirs).collect();
            panic!("relations at {lsn}: {only:?}");
        }
        for (path, bytes) in &self.files {
            let compared_already =
                ["zenith.relations", "global/pg_control", REPLICATION_ORIGINS_PATH];
            if compared_already.contains(&path.as_str())
                || path.starts_with("pg_wal/")
                || parse_relation_path(path).is_ok()
            {
                continue;
            }
            let theirs = expected.remove(path);
            let theirs = theirs.unwrap_or_else(|| panic!("{path} at {lsn}, which is nothing"));
            if *bytes != theirs {
                assert_eq!(bytes.len(), theirs.len(), "{path} at {lsn}");
                let differs = bytes.iter().zip(&theirs).position(|(a, b)| a != b);
                panic!("{path} at {lsn} from byte {differs:?} on");
            }
        }
        assert!(expected.is_empty(), "missing at {lsn}: {:?}", expected.keys());
    }

    fn compare_control_file(&self, state: &CheckpointState, checkpoint: &CheckPoint, lsn: Lsn) {
        let control = ControlFile::decode(&self.files["global/pg_control"]).unwrap();
        assert_eq!(control.state, ClusterState::ShutDown);
        assert_eq!(control.check_point, self.base);
        assert_eq!(control.check_point_copy, *checkpoint, "at {lsn}");
        assert_eq!(control.parameters, state.parameters, "at {lsn}");
        assert_eq!(control.min_recovery_point, Lsn::INVALID);
        assert_eq!(control.backup_start_point, Lsn::INVALID);
        assert!(!control.backup_end_required);
    }

    /// The WAL has one record behind what seems to be the rest of another.
    fn compare_wal(&self, state: &CheckpointState, checkpoint: &CheckPoint, lsn: Lsn) {
        let control = ControlFile::decode(&self.files["global/pg_control"]).unwrap();
        let size = control.xlog_seg_size;
        let mut names = Vec::new();
        let mut segment = self.base.segment(size);
        let mut decoder = WalStreamDecoder::new(self.base, size, None);
        let mut from = self.base;
        let record = loop {
            let name = format!("pg_wal/{}", segment.file_name(1, size));
            let bytes = &self.files[&name];
            assert_eq!(bytes.len() as u64, size.bytes());
            let there = &bytes[from.segment_offset(size) as usize..];
            decoder.feed(from, &there[..there.len().min(RECORD_SIZE_MAX)]).unwrap();
            names.push(name);
            if let Some(record) = decoder.next_record().unwrap() {
                break record;
            }
            segment.0 += 1;
            from = segment.start(size);
        };
        assert!(!matches!(decoder.next_record(), Ok(Some(_))), "more than one record at {lsn}");
        let files = self.files.keys().filter(|path| path.starts_with("pg_wal/"));
        assert!(files.eq(names.iter()), "{names:?} at {lsn}");
        let decoded = DecodedRecord::parse(&record.bytes).unwrap();
        let kind = (decoded.header.rmid, decoded.header.rmgr_info());
        assert_eq!(kind, (rmgr::XLOG, rmgr::xlog::CHECKPOINT_SHUTDOWN));
        assert_eq!((record.start, decoded.header.prev), (self.base, state.prev_record));
        assert_eq!(CheckPoint::decode(&decoded.main_data).unwrap(), *checkpoint, "at {lsn}");
    }

    /// Init forks, and their copies in the place of the main forks.
    fn compare_init_forks(&self, storage: &Storage, lsn: Lsn) {
        let is_file = |path: &&String| parse_relation_path(path).is_ok();
        let mut files: BTreeSet<&String> = self.files.keys().filter(is_file).collect();
        for (rel, size) in storage.forks.iter().filter(|(rel, _)| rel.fork == ForkNumber::Init) {
            let path = relation_path(*rel, 0);
            let main = relation_path(rel.locator().fork(ForkNumber::Main), 0);
            assert!(files.remove(&path) && files.remove(&main), "{path} at {lsn}");
            let bytes = &self.files[&path];
            assert_eq!(bytes, &self.files[&main], "{path} at {lsn}");
            assert_eq!(bytes.len(), *size as usize * BLCKSZ, "{path} at {lsn}");
            for (block, page) in (0..).map(BlockNumber).zip(bytes.chunks(BLCKSZ)) {
                let page = PageImage::from_slice(page).unwrap();
                verify(&page, block).unwrap();
                if let Some(theirs) = storage.pages.get(&PageKey::Rel { rel: *rel, block }) {
                    let mut theirs = theirs.clone();
                    set_checksum(&mut theirs, block);
                    assert!(page == theirs, "{path} block {block} at {lsn}");
                }
            }
        }
        assert!(files.is_empty(), "{files:?} at {lsn}");
    }
}

fn expected_folders(storage: &Storage) -> BTreeSet<String> {
    let mut folders: BTreeSet<String> = FOLDERS.map(str::to_owned).into();
    for spc in storage.tablespaces.keys() {
        folders.insert(format!("pg_tblspc/{spc}"));
        folders.insert(format!("pg_tblspc/{spc}/PG_15_202209061"));
    }
    folders.extend(storage.databases.iter().map(|&(spc, db)| database_path(spc, db)));
    folders
}

/// All that is the same byte for byte, whenever it was made.
fn expected_files(storage: &Storage) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    files.insert("PG_VERSION".to_owned(), b"15\n".to_vec());
    files.insert("postgresql.auto.conf".to_owned(), Vec::new());
    for (&(spc, db), map) in &storage.maps {
        let folder = database_path(spc, db);
        files.insert(format!("{folder}/pg_filenode.map"), map.to_vec());
        if db != Oid::INVALID {
            files.insert(format!("{folder}/PG_VERSION"), b"15\n".to_vec());
        }
    }
    for (xid, data) in &storage.prepared {
        let crc = crc32c::crc32c(data).to_le_bytes();
        files.insert(format!("pg_twophase/{:08X}", xid.0), [&data[..], &crc].concat());
    }
    for (key, page) in &storage.pages {
        if let PageKey::Slru { kind, page: number } = *key {
            let path = kind.segment_path(number / SLRU_PAGES_PER_SEGMENT);
            let file = files.entry(path).or_default();
            file.resize((number % SLRU_PAGES_PER_SEGMENT) as usize * BLCKSZ, 0);
            file.extend_from_slice(&page[..]);
        }
    }
    files
}

/// The lines of the list of what is to be a stub, sorted.
fn expected_list(storage: &Storage) -> Vec<String> {
    let is_listed = |rel: &postgres_formats::RelTag| {
        rel.fork != ForkNumber::Fsm
            && !storage.forks.contains_key(&rel.locator().fork(ForkNumber::Init))
    };
    let listed = storage.forks.iter().filter(|(rel, _)| is_listed(rel));
    let mut lines: Vec<String> = listed
        .map(|(rel, size)| format!("{} {}", relation_path(*rel, 0), u64::from(*size) * 8192))
        .collect();
    lines.sort_unstable();
    lines
}
