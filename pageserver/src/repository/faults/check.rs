//! What must hold of what a crash has left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postgres_formats::{BLCKSZ, Lsn};

use super::known::{Known, Names, tag_key};
use super::open;
use crate::repository::Repository;
use crate::timeline::Timeline;
use crate::timeline::damage::sample::page;
use crate::timeline::manifest::{Manifest, Origin};

/// Opens the repository in `dir` after a crash that happened after so many operations, and goes on.
///
/// # Panics
/// If something is not as it must be.
pub(super) fn check(dir: &Path, known: &Known, after: usize) {
    let repository = open(dir).unwrap();
    let names = check_names(&repository, &known.names(after));
    for timeline in &names {
        check_timeline(timeline, known, after);
    }
    // Files of which no acknowledged thing needs to be made are gone once it has started.
    check_files(dir, &repository);
    for timeline in &names {
        go_on(timeline, known);
    }
    drop(names);
    drop(repository);
    let repository = open(dir).unwrap();
    for branch in repository.branches().unwrap() {
        let timeline = repository.timeline(branch.timeline).unwrap();
        if let Some(line) = known.lines.get(&timeline.id()) {
            assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, line.end()));
        }
        check_pages(&timeline, known);
    }
    check_files(dir, &repository);
}

fn check_names(repository: &Repository, possible: &[Names]) -> Vec<Arc<Timeline>> {
    let branches = repository.branches().unwrap();
    assert_eq!(repository.unreadable(), []);
    let (tags, unusable) = repository.tags().unwrap();
    assert!(unusable.is_empty(), "{}", unusable.len());
    let tags = tags.into_iter().map(|tag| (tag_key(tag.name.as_str()), Some(tag.timeline)));
    let found: Names = branches
        .into_iter()
        .map(|branch| (branch.name.to_string(), Some(branch.timeline)))
        .chain(tags)
        .collect();
    let fits = |names: &Names| {
        names.keys().eq(found.keys())
            && names.iter().all(|(name, id)| id.is_none() || *id == found[name])
    };
    assert!(possible.iter().any(fits), "{found:?} is none of {possible:?}");
    let ids: BTreeSet<_> = found.into_values().flatten().collect();
    ids.into_iter().map(|id| repository.timeline(id).unwrap()).collect()
}

fn check_timeline(timeline: &Arc<Timeline>, known: &Known, after: usize) {
    assert_eq!(timeline.stop(), None, "no crash leaves what is damage");
    if let Some(durable) = known.durable(timeline.id(), after) {
        let last = timeline.last_record_lsn();
        assert!(last >= durable, "{last} was durable up to {durable}");
    }
    check_pages(timeline, known);
}

/// Every page at every LSN that there is.
pub(super) fn check_pages(timeline: &Arc<Timeline>, known: &Known) {
    let mut line = known.lines.get(&timeline.id());
    let last = timeline.last_record_lsn();
    let mut limit = last;
    while let Some(this) = line {
        for (lsn, _) in this.versions.iter().filter(|(end, _)| *end <= limit) {
            check_page(timeline, known, *lsn);
        }
        line = this.ancestor.and_then(|(id, at)| {
            limit = limit.min(at);
            known.lines.get(&id)
        });
    }
}

fn check_page(timeline: &Arc<Timeline>, known: &Known, lsn: Lsn) {
    let (content, len) = known.page(timeline.id(), lsn).unwrap();
    let found = page(timeline, lsn).unwrap_or_else(|| panic!("no page at {lsn}"));
    let mut expected = vec![content; usize::from(len)];
    expected.resize(BLCKSZ, 0);
    // It begins with LSN and checksum.
    assert!(found[10..] == expected[10..], "at {lsn}: {} instead of {content}", found[10]);
}

/// Receives what the branch's server has, and puts it into a layer.
fn go_on(timeline: &Arc<Timeline>, known: &Known) {
    let Some(line) = known.lines.get(&timeline.id()) else { return };
    let from = timeline.restart_receiving().unwrap();
    timeline.receive_wal(from, line.wal_from(from)).unwrap();
    timeline.sync_wal().unwrap();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, line.end()));
    check_pages(timeline, known);
    timeline.freeze().unwrap();
    check_pages(timeline, known);
}

/// That there is nothing that no branch and no manifest names.
fn check_files(dir: &Path, repository: &Repository) {
    let mut named = BTreeSet::new();
    let branches = repository.branches().unwrap();
    for branch in &branches {
        named.insert(dir.join("refs/branches").join(branch.name.as_str()));
        let timeline = repository.timeline(branch.timeline).unwrap();
        let folder = dir.join("timelines").join(branch.timeline.to_string());
        let manifest = Manifest::read(&folder).unwrap();
        named.extend([folder.join("manifest"), folder.join("wal/flushed")]);
        let layers = folder.join("layers");
        if let Origin::ImageLayer(name) = &manifest.origin {
            named.insert(layers.join(name));
        }
        if manifest.origin.ancestor().is_none() {
            named.insert(folder.join("pg_control"));
        }
        let listed = manifest.layered.deltas.iter().chain(&manifest.layered.images);
        named.extend(listed.map(|name| layers.join(name)));
        // WAL from the beginning to the segment that goes on; one behind may have been begun.
        let size = timeline.cluster().segment_size;
        let last = timeline.last_record_lsn().segment(size).0 + 1;
        for number in manifest.start.segment(size).0..=last {
            let number = postgres_formats::lsn::SegmentNumber(number);
            named.insert(folder.join("wal").join(number.file_name(1, size)));
        }
    }
    for tag in repository.tags().unwrap().0 {
        named.insert(dir.join("refs/tags").join(tag.name.as_str()));
    }
    let left: Vec<_> = files(dir).into_iter().filter(|path| !named.contains(path)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let folders = fs::read_dir(dir.join("timelines")).unwrap().count();
    assert_eq!(folders, branches.len(), "folders of timelines");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}
