//! What must hold of what a crash has left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postgres_formats::{BLCKSZ, BlockNumber, Lsn};

use super::known::{Known, Named, Names, lease_key, tag_key};
use super::open;
use crate::layer::freezer::LayerOptions;
use crate::repository::{Branch, Repository};
use crate::timeline::damage::sample::{page, rel};
use crate::timeline::error::TimelineError;
use crate::timeline::manifest::{Manifest, Origin};
use crate::timeline::{GetPageError, PageRequest, Timeline};

/// Opens the repository in `dir` after a crash that happened after so many operations, and goes on.
///
/// # Panics
/// If something is not as it must be.
pub(super) fn check(dir: &Path, known: &Known, after: usize, options: LayerOptions) {
    check_going_on(dir, known, after, options);
    let repository = open(dir, options).unwrap();
    for branch in repository.branches().unwrap() {
        let timeline = repository.timeline(branch.timeline).unwrap();
        if let Some(line) = known.lines.get(&timeline.id()) {
            assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, line.end()));
        }
        check_pages(&timeline, known);
    }
    check_files(dir, &repository, options.keep_wal_bytes.is_some());
}

/// The same without another start.
pub(super) fn check_going_on(dir: &Path, known: &Known, after: usize, options: LayerOptions) {
    let repository = open(dir, options).unwrap();
    let names = check_names(&repository, known, &known.names(after));
    for timeline in &names {
        check_timeline(timeline, known, after);
    }
    // Files of which no acknowledged thing needs to be made are gone once it has started.
    check_files(dir, &repository, options.keep_wal_bytes.is_some());
    for branch in repository.branches().unwrap().iter().filter(|branch| branch.detaching) {
        assert!(repository.detach(&branch.name).unwrap().ancestor.is_none());
        check_kept(&repository, &repository.branches().unwrap());
        check_files(dir, &repository, options.keep_wal_bytes.is_some());
    }
    for timeline in &names {
        go_on(timeline, known);
    }
}

fn check_names(repository: &Repository, known: &Known, possible: &[Names]) -> Vec<Arc<Timeline>> {
    let branches = repository.branches().unwrap();
    assert_eq!(repository.unreadable(), []);
    let (tags, unusable) = repository.tags().unwrap();
    assert!(unusable.is_empty(), "{}", unusable.len());
    for tag in &tags {
        // What is before the horizon elsewhere is there where a tag is.
        let (timeline, at) = (repository.timeline(tag.timeline).unwrap(), tag.lsn);
        assert!(known.page(tag.timeline, at).is_none() || page(&timeline, at).is_some(), "{at}");
    }
    assert!(repository.leases().unreadable().is_empty());
    let leases = repository.leases().list();
    for lease in &leases {
        let timeline = repository.timeline(lease.timeline).unwrap();
        for at in &lease.lsns {
            assert!(page(&timeline, *at).is_some(), "{at}");
        }
    }
    let leases = leases.into_iter().map(|lease| {
        (lease_key(lease.name.as_str(), &lease.lsns), Named::on(Some(lease.timeline)))
    });
    check_kept(repository, &branches);
    let tags =
        tags.into_iter().map(|tag| (tag_key(tag.name.as_str()), Named::on(Some(tag.timeline))));
    let named = |branch: Branch| {
        let Branch { timeline, protected, expires, retention, .. } = branch;
        (branch.name.to_string(), Named { timeline: Some(timeline), protected, expires, retention })
    };
    let found: Names = branches.into_iter().map(named).chain(tags).chain(leases).collect();
    let fits = |names: &Names| {
        names.keys().eq(found.keys()) && names.iter().all(|(name, known)| known.fits(&found[name]))
    };
    assert!(possible.iter().any(fits), "{found:?} is none of {possible:?}");
    let ids: BTreeSet<_> = found.into_values().filter_map(|named| named.timeline).collect();
    ids.into_iter().map(|id| repository.timeline(id).unwrap()).collect()
}

/// That those timelines without a name are kept on which something stands, and no others.
fn check_kept(repository: &Repository, branches: &[Branch]) {
    let kept = repository.kept().unwrap().0;
    let named: BTreeSet<_> = branches.iter().map(|branch| branch.timeline).collect();
    let ancestors = branches.iter().map(|branch| branch.ancestor);
    let ancestors = ancestors.chain(kept.iter().map(|kept| kept.ancestor));
    let mut needed: BTreeSet<_> = ancestors.flatten().map(|ancestor| ancestor.timeline).collect();
    needed.retain(|id| !named.contains(id));
    let kept: BTreeSet<_> = kept.into_iter().map(|kept| kept.timeline).collect();
    assert_eq!(kept, needed, "timelines without a name");
}

fn check_timeline(timeline: &Arc<Timeline>, known: &Known, after: usize) {
    assert_eq!(timeline.stop(), None, "no crash leaves what is damage");
    if let Some(durable) = known.durable(timeline.id(), after) {
        let last = timeline.last_record_lsn();
        assert!(last >= durable, "{last} was durable up to {durable}");
    }
    if known.is_detached(timeline.id(), after) {
        assert_eq!(timeline.origin(), Origin::OwnImage);
    }
    check_pages(timeline, known);
}

/// Every page at every LSN that there is.
pub(super) fn check_pages(timeline: &Arc<Timeline>, known: &Known) {
    let mut lsns = Vec::new();
    let mut line = known.lines.get(&timeline.id());
    let mut limit = timeline.last_record_lsn();
    while let Some(this) = line {
        lsns.extend(this.versions.iter().map(|(end, _)| *end).filter(|end| *end <= limit));
        line = this.ancestor.and_then(|(id, at)| {
            limit = limit.min(at);
            known.lines.get(&id)
        });
    }
    check_pages_at(timeline, known, &lsns);
}

fn check_pages_at(timeline: &Arc<Timeline>, known: &Known, lsns: &[Lsn]) {
    let request = |lsn: &Lsn| PageRequest::rel(rel(), BlockNumber(0), *lsn);
    let requests: Vec<PageRequest> = lsns.iter().map(request).collect();
    for (found, lsn) in timeline.get_pages(&requests, Duration::ZERO).into_iter().zip(lsns) {
        let found = match found {
            Err(GetPageError::Timeline(TimelineError::BeforeBeginning { .. }))
                if known.may_be_gone(timeline.id(), *lsn) =>
            {
                continue;
            }
            found => found.unwrap_or_else(|error| panic!("at {lsn}: {error}")),
        };
        let (content, len) = known.page(timeline.id(), *lsn).unwrap();
        // It begins with LSN and checksum.
        let (bytes, rest) = found[10..].split_at(usize::from(len) - 10);
        let is_good =
            bytes == &[content; BLCKSZ][..bytes.len()] && rest == &[0; BLCKSZ][..rest.len()];
        assert!(is_good, "at {lsn}: {} instead of {content}", found[10]);
    }
}

/// Receives what the branch's server has, and puts it into a layer.
fn go_on(timeline: &Arc<Timeline>, known: &Known) {
    let Some(line) = known.lines.get(&timeline.id()) else { return };
    let from = timeline.restart_receiving().unwrap();
    timeline.receive_wal(from, line.wal_from(from)).unwrap();
    timeline.sync_wal().unwrap();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, line.end()));
    timeline.freeze().unwrap();
    // All of it is read, and nothing remembered, when it is opened again.
    let own: Vec<Lsn> = line.versions.iter().map(|(end, _)| *end).collect();
    check_pages_at(timeline, known, &own);
}

/// That there is nothing that no branch and no manifest names.
fn check_files(dir: &Path, repository: &Repository, wal_is_removed: bool) {
    let mut named = BTreeSet::new();
    let branches = repository.branches().unwrap();
    let kept = repository.kept().unwrap().0;
    named.extend(branches.iter().map(|it| dir.join("refs/branches").join(it.name.as_str())));
    named.extend(kept.iter().map(|it| dir.join("refs/kept").join(it.timeline.to_string())));
    let nameless = kept.iter().map(|kept| kept.timeline);
    for id in branches.iter().map(|branch| branch.timeline).chain(nameless) {
        let timeline = repository.timeline(id).unwrap();
        let folder = dir.join("timelines").join(id.to_string());
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
        // WAL from the beginning, or from what is in no layer, to the segment that goes on; one behind
        // may have been begun.
        let size = timeline.cluster().segment_size;
        let first = if wal_is_removed { manifest.layered.end } else { manifest.start };
        let last = timeline.last_record_lsn().segment(size).0 + 1;
        for number in first.segment(size).0..=last {
            let number = postgres_formats::lsn::SegmentNumber(number);
            named.insert(folder.join("wal").join(number.file_name(1, size)));
        }
    }
    for tag in repository.tags().unwrap().0 {
        named.insert(dir.join("refs/tags").join(tag.name.as_str()));
    }
    named.insert(dir.join("leases/all.known"));
    for lease in repository.leases().list() {
        named.insert(dir.join("leases").join(lease.holder.as_str()));
    }
    let left: Vec<_> = files(dir).into_iter().filter(|path| !named.contains(path)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let folders = fs::read_dir(dir.join("timelines")).unwrap().count();
    assert_eq!(folders, branches.len() + kept.len(), "folders of timelines");
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
