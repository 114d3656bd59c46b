//! The control commands: each asks the repository or the followers, and answers with rows.

use std::sync::Arc;
use std::time::Duration;

use durable_files::FactError;
use pageserver_client::{BranchName, Generation, Point};
use postgres_formats::{TimelineId, Timestamp};

use super::PageService;
use super::command::{COMMANDS, Command};
use super::error::CommandError;
use super::rows::{branch_row, follow_row, timeline_row, unreadable_row, writer_row};
use super::status::status;
use super::table::{Rows, text};
use super::{gc, leases, pagestream, tags};
use crate::repository::{Kept, LeaseRequest, RepositoryError, Retention};
use crate::timeline::{LayerFile, Timeline, WrittenLayer};
use crate::wal::followers::FollowError;
use crate::work::WorkState;
use crate::writer::WriterFact;

/// The rows of a command that answers with rows; `None` if it is another kind of command.
pub(super) fn execute(
    service: &PageService,
    command: &Command,
) -> Result<Option<Rows>, CommandError> {
    let repository = &service.repository;
    let rows = match command {
        Command::Status => vec![status(service)?],
        Command::BranchList => {
            repository.look_again();
            let branches = repository.branches()?;
            let mut rows: Rows = branches.iter().map(|b| branch_row(service, b)).collect();
            rows.extend(repository.unreadable().iter().filter_map(unreadable_row));
            rows
        }
        Command::BranchShow { name } => {
            vec![branch_row(service, &repository.branch(&name.parse()?)?)]
        }
        Command::TimelineShow { timeline } => {
            vec![timeline_row(&service.timeline(timeline)?.1)]
        }
        Command::ComputeList => {
            service.followers.list().iter().map(|follow| follow_row(service, follow)).collect()
        }
        Command::BranchCreate { name, point, expires } => {
            let name: BranchName = name.parse()?;
            let point: Point = point.parse()?;
            let expires = expires.map(whole_seconds);
            let branch =
                repository.create_branch_until(&name, &point, expires, service.lsn_timeout)?;
            service.expiry.look_again();
            vec![branch_row(service, &branch)]
        }
        Command::BranchProtect { name, protected } => {
            let branch = repository.protect_branch(&name.parse()?, *protected)?;
            service.expiry.look_again();
            vec![branch_row(service, &branch)]
        }
        Command::BranchExpire { name, expires } => {
            let expires = expires.map(whole_seconds);
            let branch = repository.expire_branch(&name.parse()?, expires)?;
            service.expiry.look_again();
            vec![branch_row(service, &branch)]
        }
        Command::BranchRetain { name, retention } => {
            let retention = Retention::of(*retention);
            let branch = repository.retain_branch(&name.parse()?, retention)?;
            service.collector.look_again();
            vec![branch_row(service, &branch)]
        }
        Command::BranchDelete { name, reparent } => {
            vec![branch_delete(service, &name.parse()?, *reparent)?]
        }
        Command::BranchDetach { name, wait } => {
            let name = name.parse()?;
            let branch = match wait {
                true => repository.detach(&name)?,
                false => repository.begin_detaching(&name)?,
            };
            vec![branch_row(service, &branch)]
        }
        Command::BranchRename { old, new } => {
            let branch = repository.rename_branch(&old.parse()?, &new.parse()?)?;
            vec![branch_row(service, &branch)]
        }
        Command::TagList => tags::list(repository)?,
        Command::TagCreate { name, point } => {
            let (name, point): (BranchName, Point) = (name.parse()?, point.parse()?);
            let tag = repository.create_tag(&name, &point, service.lsn_timeout)?;
            vec![tags::row(repository, &tag)?]
        }
        Command::TagDelete { name } => {
            let name: BranchName = name.parse()?;
            let row = tags::row_of(repository, &name)?;
            repository.delete_tag(&name)?;
            vec![row]
        }
        Command::CallMeMaybe { timeline, connstr, follow_as } => {
            // Loaded first, so that what does not exist cannot be followed.
            let (id, _) = service.timeline(timeline)?;
            service.followers.follow(id, connstr, follow_as.as_ref())?;
            service.followers.status(id).iter().map(|follow| follow_row(service, follow)).collect()
        }
        Command::ForgetMeMaybe { timeline } => {
            let id = service.timeline_id(timeline)?;
            let followed = service.followers.forget(id)?;
            if let Some(timeline) = repository.loaded_timeline(id) {
                timeline.source_is_gone();
            }
            followed.iter().map(|follow| follow_row(service, follow)).collect()
        }
        Command::WriterShow { timeline } => {
            let (id, timeline) = service.timeline(timeline)?;
            let fact = service.followers.writers().role(id).map_err(FollowError::from)?.fact();
            vec![writer_row(service, id, Ok(fact.as_ref()), Some(&timeline))]
        }
        Command::WriterList => writer_list(service)?,
        Command::WriterClaim { timeline, claim } => {
            let (id, timeline) = service.timeline(timeline)?;
            let fact = service.followers.claim(&timeline, claim.clone())?;
            vec![writer_row(service, id, Ok(Some(&fact)), Some(&timeline))]
        }
        Command::WriterRelease { timeline, instance } => {
            let (id, timeline) = service.timeline(timeline)?;
            let fact = service.followers.release(id, instance)?;
            vec![writer_row(service, id, Ok(fact.as_ref()), Some(&timeline))]
        }
        Command::Checkpoint { timeline } => {
            let frozen = service.timeline(timeline)?.1.freeze()?;
            let layer = |layer: &WrittenLayer| {
                vec![None, text(&layer.name), text(layer.bytes), text(layer.wal_bytes)]
            };
            let end = vec![text(frozen.end), None, None, None];
            frozen.layers.iter().map(layer).chain([end]).collect()
        }
        Command::Compact { timeline } => compact(service, timeline)?,
        Command::WorkList => {
            let row = |work: &WorkState| {
                let WorkState { timeline, kind, lsn, done, total } = work;
                vec![text(timeline), text(kind.name()), text(lsn), text(done), text(total)]
            };
            repository.works().list().iter().map(row).collect()
        }
        Command::KeptList => {
            let row = |kept: &Kept| {
                let at = kept.ancestor;
                vec![
                    text(kept.timeline),
                    text(&kept.name),
                    at.and_then(|at| text(at.timeline)),
                    at.and_then(|at| text(at.lsn)),
                ]
            };
            repository.kept_timelines()?.iter().map(row).collect()
        }
        Command::LeaseList => leases::list(service),
        Command::LeaseSet { holder, name, timeline, lsn, lasts, since } => {
            let request = LeaseRequest {
                holder: holder.clone(),
                name: name.clone(),
                timeline: service.timeline_id(timeline)?,
                lsn: *lsn,
                since: *since,
                lasts: lasts.map(Duration::from_secs),
            };
            vec![leases::row(service, &repository.lease(&request, service.lsn_timeout)?)]
        }
        Command::LeaseNarrow { holder, lsn } => {
            vec![leases::row(service, &repository.narrow_lease(holder, *lsn)?)]
        }
        Command::LeaseRenew { holder } => {
            vec![leases::row(service, &repository.renew_lease(holder)?)]
        }
        Command::LeaseDrop { holder } => {
            repository.drop_lease(holder)?.iter().map(|lease| leases::row(service, lease)).collect()
        }
        Command::LeaseAllKnown => {
            repository.all_computes_known()?;
            Rows::new()
        }
        Command::Gc { timeline, dry } => gc::rows(service, service.timeline_id(timeline)?, *dry)?,
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

/// Seconds since 1970, the second begun counted as well.
fn whole_seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_unix_micros()).unwrap_or(0).div_ceil(1_000_000)
}

fn compact(service: &PageService, timeline: &str) -> Result<Rows, CommandError> {
    let done = service.timeline(timeline)?.1.compact()?;
    let row = |layer: &LayerFile, replaced: bool| {
        vec![None, text(&layer.name), text(layer.bytes), text(replaced), None]
    };
    let mut rows: Rows = done.made.iter().map(|layer| row(layer, false)).collect();
    rows.extend(done.replaced.iter().map(|layer| row(layer, true)));
    let bytes: u64 = done.layers.iter().map(|layer| layer.bytes).sum();
    rows.push(vec![text(done.end), None, text(bytes), None, text(done.layers.len())]);
    Ok(rows)
}

fn branch_delete(
    service: &PageService,
    name: &BranchName,
    reparent: bool,
) -> Result<Vec<Option<String>>, CommandError> {
    let branch = service.repository.branch(name)?;
    let row = branch_row(service, &branch);
    // The receiver would go on writing into a folder that is gone.
    if let Some(follow) = service.followers.status(branch.timeline) {
        return Err(CommandError::Followed { branch: name.to_string(), server: follow.connstr });
    }
    match reparent {
        true => service.repository.delete_branch_reparenting(name)?,
        false => service.repository.delete_branch(name)?,
    };
    service.followers.writers().forget(branch.timeline);
    Ok(row)
}

fn writer_list(service: &PageService) -> Result<Rows, CommandError> {
    let path = service.repository.dir().join("timelines");
    let facts = service.followers.writers().list();
    let facts = facts.map_err(|source| FollowError::Io { path, source })?;
    let row = |(id, fact): &(TimelineId, Result<WriterFact, FactError>)| {
        writer_row(service, *id, fact.as_ref().map(Some), None)
    };
    Ok(facts.iter().map(row).collect())
}

impl PageService {
    /// The compute that got the role of `timeline`'s writer as `generation`. Where it is not known
    /// who has it, nobody is fenced: pages do no harm.
    pub(super) fn compute(
        &self,
        timeline: TimelineId,
        generation: Generation,
    ) -> Option<pagestream::Compute> {
        let role = self.followers.writers().role(timeline).ok()?;
        Some(pagestream::Compute { role, generation })
    }

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
