//! The control commands: each asks the repository or the followers, and answers with rows.

use std::sync::Arc;

use postgres_formats::TimelineId;

use super::PageService;
use super::command::{COMMANDS, Command};
use super::error::CommandError;
use super::table::{Rows, text};
use crate::point::{BranchName, Point};
use crate::repository::Branch;
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
        Command::Help => {
            COMMANDS.iter().map(|spec| vec![text(spec.usage), text(spec.purpose)]).collect()
        }
        Command::PageStream { .. } | Command::BaseBackup { .. } | Command::Ignored { .. } => {
            return Ok(None);
        }
    };
    Ok(Some(rows))
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
    // Listing must not load every timeline: `timeline_show` tells more of one.
    let loaded = service.repository.loaded_timeline(branch.timeline);
    vec![
        text(&branch.name),
        text(branch.timeline),
        branch.ancestor.and_then(|ancestor| text(ancestor.timeline)),
        branch.ancestor.and_then(|ancestor| text(ancestor.lsn)),
        text(branch.start),
        loaded.and_then(|timeline| text(timeline.last_record_lsn())),
        text(branch.created),
    ]
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
        text(manifest.created),
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
