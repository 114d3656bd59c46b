//! The rows that tell of a branch, a timeline, a receiver or a writer.

use std::sync::Arc;

use durable_files::FactError;
use pageserver_client::Generation;
use postgres_formats::{TimelineId, Timestamp};

use super::PageService;
use super::command::CommandSpec;
use super::table::text;
use crate::error_text::with_causes;
use crate::repository::{Branch, Retention, Unreadable};
use crate::timeline::Timeline;
use crate::wal::follower::FollowStatus;
use crate::writer::WriterFact;

/// The state of a timeline that takes in WAL.
const RUNNING: &str = "running";
/// The state of one that cannot be read.
pub(super) const DAMAGED: &str = "damaged";

pub(super) fn unix_seconds(seconds: u64) -> Timestamp {
    let micros = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Timestamp::from_unix_micros(micros)
}

/// The row of a branch whose files are damaged; none for a timeline without a name.
pub(super) fn unreadable_row(damaged: &Unreadable) -> Option<Vec<Option<String>>> {
    let name = damaged.name.as_ref()?;
    let cause = Some(damaged.cause.clone());
    let timeline = damaged.timeline.and_then(text);
    let damaged = text(DAMAGED);
    let mut row = vec![text(name), timeline, None, None, None, None, None, damaged, None, cause];
    // The later columns tell nothing of it.
    row.resize(CommandSpec::find("branch_list")?.columns.len(), None);
    Some(row)
}

/// The columns `state`, `stopped_lsn` and `cause`; all empty if the timeline is not loaded.
fn state_columns(timeline: Option<&Arc<Timeline>>) -> [Option<String>; 3] {
    let Some(timeline) = timeline else { return [None, None, None] };
    timeline.look_again();
    match timeline.stop() {
        None => [text(RUNNING), None, None],
        Some(stop) => [text(stop.state()), text(stop.lsn), Some(stop.text())],
    }
}

pub(super) fn branch_row(service: &PageService, branch: &Branch) -> Vec<Option<String>> {
    let repository = &service.repository;
    // Listing must not load every timeline: `timeline_show` tells more of one. The default branch
    // is loaded at every start, so that at most the end of that has to be waited for.
    let timeline = if branch.name.as_str() == repository.default_branch() {
        repository.timeline(branch.timeline).ok()
    } else {
        repository.loaded_timeline(branch.timeline)
    };
    let [state, stopped, cause] = match (&timeline, repository.load_failure(branch.timeline)) {
        (None, Some(failure)) => [text(DAMAGED), None, Some(failure)],
        _ => state_columns(timeline.as_ref()),
    };
    let last_record = match &timeline {
        Some(timeline) => Some(timeline.last_record_lsn()),
        None => repository.has_no_wal(branch.timeline).then_some(branch.start),
    };
    let named = branch.ancestor.and_then(|ancestor| repository.named(ancestor.timeline));
    vec![
        text(&branch.name),
        text(branch.timeline),
        branch.ancestor.and_then(|ancestor| text(ancestor.timeline)),
        branch.ancestor.and_then(|ancestor| text(ancestor.lsn)),
        text(branch.start),
        last_record.and_then(text),
        text(unix_seconds(branch.created)),
        state,
        stopped,
        cause,
        named.and_then(|branch| text(branch.name)),
        text(branch.protected),
        branch.expires.and_then(|expires| text(unix_seconds(expires))),
        service.expiry.kept_because(branch.timeline),
        text(branch.detaching),
        text(Retention::spec(branch.retention)),
    ]
}

pub(super) fn timeline_row(timeline: &Arc<Timeline>) -> Vec<Option<String>> {
    let manifest = timeline.manifest();
    let ancestor = timeline.origin().ancestor();
    let [state, stopped, cause] = state_columns(Some(timeline));
    let positions = timeline.positions();
    vec![
        text(timeline.id()),
        ancestor.and_then(|ancestor| text(ancestor.timeline)),
        ancestor.and_then(|ancestor| text(ancestor.lsn)),
        text(timeline.start_lsn()),
        text(timeline.oldest_lsn()),
        text(positions.last_record),
        text(positions.received),
        text(positions.flushed),
        text(timeline.version_count()),
        text(unix_seconds(manifest.created)),
        state,
        stopped,
        cause,
    ]
}

pub(super) fn follow_row(service: &PageService, follow: &FollowStatus) -> Vec<Option<String>> {
    let timeline = service.repository.loaded_timeline(follow.timeline);
    let [_, stopped, cause] = state_columns(timeline.as_ref());
    vec![
        text(follow.timeline),
        text(&follow.connstr),
        text(follow.state.name()),
        follow.received.and_then(text),
        follow.flushed.and_then(text),
        follow.message.clone(),
        stopped,
        cause,
    ]
}

/// A timeline's writer and how it is followed; how far its WAL has come only if it is loaded.
pub(super) fn writer_row(
    service: &PageService,
    id: TimelineId,
    fact: Result<Option<&WriterFact>, &FactError>,
    timeline: Option<&Arc<Timeline>>,
) -> Vec<Option<String>> {
    let follow = service.followers.status(id);
    let positions = timeline.map(|timeline| timeline.positions());
    let generation = fact.map(|fact| fact.map_or(Generation::NONE, |fact| fact.generation));
    let message = match fact {
        Err(error) => Some(with_causes(error)),
        Ok(_) => follow.as_ref().and_then(|follow| follow.message.clone()),
    };
    let fact = fact.ok().flatten();
    vec![
        text(id),
        generation.ok().and_then(text),
        fact.and_then(|fact| text(&fact.instance)),
        fact.and_then(|fact| text(&fact.name)),
        fact.and_then(|fact| text(fact.held)),
        fact.and_then(|fact| text(fact.since())),
        fact.and_then(|fact| text(fact.lsn)),
        follow.and_then(|follow| text(follow.state.name())),
        positions.and_then(|positions| text(positions.last_record)),
        positions.and_then(|positions| text(positions.received)),
        positions.and_then(|positions| text(positions.flushed)),
        message,
    ]
}
