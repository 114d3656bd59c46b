//! A base backup, unpacked in memory; and the one that leaves SLRUs out against the one that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use pageserver::basebackup::{BaseBackup, Form};
use pageserver::timeline::Timeline;
use postgres_formats::checkpoint::CheckPoint;
use postgres_formats::slru::SLRU_PAGES_PER_SEGMENT;
use postgres_formats::{BLCKSZ, Lsn, SlruKind};

const PAGES: &str = "zenith.pages/";

/// The base backup there, whose WAL has been received.
pub fn prepare(timeline: &Arc<Timeline>, lsn: Lsn, form: Form) -> BaseBackup {
    BaseBackup::prepare(timeline.clone(), Some(lsn), form, Duration::ZERO).unwrap()
}

/// A base backup in memory.
#[derive(PartialEq)]
pub struct Unpacked {
    pub base: Lsn,
    pub folders: BTreeSet<String>,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Unpacked {
    /// Takes it by way of `tar`, whose memory serves again.
    pub fn take(timeline: &Arc<Timeline>, lsn: Lsn, form: Form, tar: &mut Vec<u8>) -> Unpacked {
        let backup = prepare(timeline, lsn, form);
        tar.clear();
        backup.write_to(&mut *tar).unwrap();
        let mut unpacked =
            Unpacked { base: backup.base_lsn(), folders: BTreeSet::new(), files: BTreeMap::new() };
        let mut last = String::new();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            last.clone_from(&path);
            let is_new = if entry.header().entry_type().is_dir() {
                unpacked.folders.insert(path)
            } else {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                unpacked.files.insert(path, bytes).is_none()
            };
            assert!(is_new, "{last} is there twice");
        }
        // Cut off anywhere, it is nothing that a server would start from.
        assert_eq!(last, "global/pg_control");
        unpacked.leave_out_maps();
        unpacked
    }

    /// Free space maps come with images, which are made at any time. But none is there without its table.
    fn leave_out_maps(&mut self) {
        let list = self.files.get_mut("zenith.relations").unwrap();
        let text = String::from_utf8(std::mem::take(list)).unwrap();
        let (maps, others): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains("_fsm"));
        let tables: BTreeSet<&str> =
            others.iter().filter_map(|line| line.split(' ').next()).collect();
        for map in maps {
            let table = map.split("_fsm").next().unwrap();
            assert!(tables.contains(table), "{map} without its table at {}", self.base);
        }
        others.iter().for_each(|line| list.extend(format!("{line}\n").bytes()));
    }

    /// Compares one with stubs of SLRUs with the one at the same LSN that has them whole.
    pub fn compare_stubs(&self, whole: &Unpacked, checkpoint: &CheckPoint, lsn: Lsn) {
        assert_eq!((self.base, &self.folders), (whole.base, &whole.folders), "at {lsn}");
        let of_slru = |path: &str| {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            SlruKind::ALL.into_iter().any(|kind| kind.dir() == folder)
        };
        let mut expected = String::from_utf8(whole.files["zenith.relations"].clone()).unwrap();
        for (path, bytes) in whole.files.iter().filter(|(path, _)| of_slru(path)) {
            expected.push_str(&format!("{path} {}\n", bytes.len()));
        }
        let list = String::from_utf8(self.files["zenith.relations"].clone()).unwrap();
        let sorted = |list: &str| list.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(list.lines().count(), expected.lines().count(), "at {lsn}");
        assert!(sorted(&list) == sorted(&expected), "list of stubs at {lsn}");

        for (path, bytes) in &self.files {
            let theirs = match path.strip_prefix(PAGES) {
                Some(page) => {
                    let (path, block) = page.rsplit_once('/').unwrap();
                    let at = block.parse::<usize>().unwrap() * BLCKSZ;
                    &whole.files[path][at..at + BLCKSZ]
                }
                None if path == "zenith.relations" => continue,
                None => &whole.files[path][..],
            };
            assert!(bytes == theirs, "{path} at {lsn}");
        }
        let is_left_out =
            |path: &&String| !self.files.contains_key(path.as_str()) && !of_slru(path);
        assert_eq!(whole.files.keys().find(is_left_out), None, "left out at {lsn}");

        // What PostgreSQL would otherwise wait for before it lets anybody in.
        let next_page = SlruKind::Clog.page_of(checkpoint.next_xid.xid().0);
        let path = SlruKind::Clog.segment_path(next_page / SLRU_PAGES_PER_SEGMENT);
        let block = (next_page % SLRU_PAGES_PER_SEGMENT) as usize;
        if whole.files.get(&path).is_some_and(|bytes| bytes.len() > block * BLCKSZ) {
            assert!(self.files.contains_key(&format!("{PAGES}{path}/{block}")), "at {lsn}");
        }
    }
}
