//! The control commands: each asks the repository or the followers, and answers with rows.

use std::sync::Arc;

use pageserver_client::{BranchName, Point};
use postgres_formats::{TimelineId, Timestamp};

use super::PageService;
use super::command::{COMMANDS, Command};
use super::error::CommandError;
use super::table::{Rows, text};
use crate::repository::{Branch, RepositoryError};
use crate::timeline::Timeline;
use crate::timeline::manifest::Origin;
use crate::wal::follower::{FollowState, FollowStatus};

/// The rows of a command that answers with rows; `None` if it is another kind of command.
pub(super) fn execute(
    service: &PageService,
    command: &Command,
) -> Result<Option<Rows>, CommandError> {
    let repository = &service.repository;
    let rows = match command {
        Command::Status => vec![status(service)],
        Command::BranchList => {
            repository.branches().iter().map(|branch| branch_row(service, branch)).collect()
        }
        Command::TimelineShow { timeline } => {
            vec![timeline_row(&service.timeline(timeline)?.1)]
        }
        Command::ComputeList => service.followers.list().iter().map(follow_row).collect(),
        Command::BranchCreate { name, point } => {
            let name: BranchName = name.parse()?;
            let point: Point = point.parse()?;
            let branch = repository.create_branch(&name, &point, service.lsn_timeout)?;
            vec![branch_row(service, &branch)]
        }
        Command::BranchDelete { name } => vec![branch_delete(service, &name.parse()?)?],
        Command::BranchRename { old, new } => {
            let branch = repository.rename_branch(&old.parse()?, &new.parse()?)?;
            vec![branch_row(service, &branch)]
        }
        Command::CallMeMaybe { timeline, connstr } => {
            // Loaded first, so that what does not exist cannot be followed.
            let (id, _) = service.timeline(timeline)?;
            service.followers.follow(id, connstr)?;
            service.followers.status(id).iter().map(follow_row).collect()
        }
        Command::ForgetMeMaybe { timeline } => {
            let id = service.timeline_id(timeline)?;
            service.followers.forget(id)?.iter().map(follow_row).collect()
        }
        Command::LsnAt { timeline, time } => {
            vec![vec![text(service.timeline(timeline)?.1.lsn_at(*time)?)]]
        }
        Command::TimestampAt { timeline, lsn } => {
            let (_, timeline) = service.timeline(timeline)?;
            timeline.check_lsn(*lsn)?;
            timeline.wait_lsn(*lsn, service.lsn_timeout).map_err(RepositoryError::from)?;
            vec![vec![text(timeline.timestamp_at(*lsn)?)]]
        }
        Command::Help => {
            COMMANDS.iter().map(|spec| vec![text(spec.usage), text(spec.purpose)]).collect()
        }
        Command::PageStream { .. } | Command::BaseBackup { .. } | Command::Ignored { .. } => {
            return Ok(None);
        }
    };
    Ok(Some(rows))
}

fn unix_seconds(seconds: u64) -> Timestamp {
    let micros = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Timestamp::from_unix_micros(micros)
}

fn status(service: &PageService) -> Vec<Option<String>> {
    let cache = service.repository.maker().cache.stats();
    let follows = service.followers.list();
    let streaming = follows.iter().filter(|follow| follow.state == FollowState::Streaming).count();
    vec![
        text(env!("CARGO_PKG_VERSION")),
        text(std::process::id()),
        text(service.repository.dir().display()),
        text(service.started.elapsed().as_secs()),
        text(service.repository.branches().len()),
        text(follows.len()),
        text(streaming),
        text(cache.bytes),
        text(cache.hits),
        text(cache.misses),
    ]
}

fn branch_delete(
    service: &PageService,
    name: &BranchName,
) -> Result<Vec<Option<String>>, CommandError> {
    let branch = service.repository.branch(name)?;
    let row = branch_row(service, &branch);
    // The receiver would go on writing into a folder that is gone.
    if let Some(follow) = service.followers.status(branch.timeline) {
        return Err(CommandError::Followed { branch: name.to_string(), server: follow.connstr });
    }
    service.repository.delete_branch(name)?;
    Ok(row)
}

fn branch_row(service: &PageService, branch: &Branch) -> Vec<Option<String>> {
    let repository = &service.repository;
    // Listing must not load every timeline: `timeline_show` tells more of one. The default branch
    // is loaded at every start, so that at most the end of that has to be waited for.
    let timeline = if branch.name.as_str() == repository.default_branch() {
        repository.timeline(branch.timeline).ok()
    } else {
        repository.loaded_timeline(branch.timeline)
    };
    let last_record = match timeline {
        Some(timeline) => Some(timeline.last_record_lsn()),
        None => has_no_wal(service, branch.timeline).then_some(branch.start),
    };
    vec![
        text(&branch.name),
        text(branch.timeline),
        branch.ancestor.and_then(|ancestor| text(ancestor.timeline)),
        branch.ancestor.and_then(|ancestor| text(ancestor.lsn)),
        text(branch.start),
        last_record.and_then(text),
        text(unix_seconds(branch.created)),
    ]
}

/// Whether nothing has been received on a timeline yet.
fn has_no_wal(service: &PageService, timeline: TimelineId) -> bool {
    let dir = service.repository.dir().join("timelines").join(timeline.to_string()).join("wal");
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

fn timeline_row(timeline: &Arc<Timeline>) -> Vec<Option<String>> {
    let manifest = timeline.manifest();
    let ancestor = match &manifest.origin {
        Origin::Ancestor(ancestor) => Some(*ancestor),
        Origin::ImageLayer(_) => None,
    };
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
    ]
}

fn follow_row(follow: &FollowStatus) -> Vec<Option<String>> {
    vec![
        text(follow.timeline),
        text(&follow.connstr),
        text(follow.state.name()),
        follow.received.and_then(text),
        follow.flushed.and_then(text),
        follow.message.clone(),
    ]
}

impl PageService {
    /// The timeline that a client means by an id or the name of a branch.
    pub(super) fn timeline_id(&self, named: &str) -> Result<TimelineId, CommandError> {
        // 32 hexadecimal digits are an id, whatever branches are called.
        if let Ok(id) = named.parse() {
            return Ok(id);
        }
        Ok(self.repository.branch(&named.parse()?)?.timeline)
    }

    /// The same, loaded.
    pub(super) fn timeline(
        &self,
        named: &str,
    ) -> Result<(TimelineId, Arc<Timeline>), CommandError> {
        let id = self.timeline_id(named)?;
        Ok((id, self.repository.timeline(id)?))
    }
}
