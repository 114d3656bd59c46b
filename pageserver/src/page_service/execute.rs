//! The control commands: each asks the repository or the followers, and answers with rows.

use std::sync::Arc;
use std::time::Duration;

use durable_files::FactError;
use pageserver_client::{BranchName, Generation, Point};
use postgres_formats::{TimelineId, Timestamp};

use super::PageService;
use super::command::{COMMANDS, Command, CommandSpec};
use super::error::CommandError;
use super::table::{Rows, text};
use super::{gc, leases, pagestream, tags};
use crate::collector::Collections;
use crate::error_text::with_causes;
use crate::repository::{
    Branch, Kept, LeaseRequest, RepositoryError, Retention, Trouble, Unreadable,
};
use crate::timeline::{Debt, LayerFile, Timeline, WrittenLayer};
use crate::wal::follower::{FollowState, FollowStatus};
use crate::wal::followers::FollowError;
use crate::work::WorkState;
use crate::writer::WriterFact;

/// The state of a timeline that takes in WAL.
const RUNNING: &str = "running";
/// The state of one that cannot be read.
pub(super) const DAMAGED: &str = "damaged";

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

pub(super) fn unix_seconds(seconds: u64) -> Timestamp {
    let micros = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Timestamp::from_unix_micros(micros)
}

/// Seconds since 1970, the second begun counted as well.
fn whole_seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_unix_micros()).unwrap_or(0).div_ceil(1_000_000)
}

fn status(service: &PageService) -> Result<Vec<Option<String>>, CommandError> {
    let cache = service.repository.maker().cache.stats();
    let debts = service.repository.debts();
    let (kept, kept_bytes) = service.repository.kept()?;
    let found = service.collector.found();
    let sweep = found.sweep();
    let follows = service.followers.list();
    let streaming = follows.iter().filter(|follow| follow.state == FollowState::Streaming).count();
    Ok(vec![
        text(env!("CARGO_PKG_VERSION")),
        text(std::process::id()),
        text(service.repository.dir().display()),
        text(service.started.elapsed().as_secs()),
        text(service.repository.branch_count()?),
        text(follows.len()),
        text(streaming),
        text(cache.bytes),
        text(cache.hits),
        text(cache.misses),
        text(service.repository.loaded_count()),
        text(service.repository.open_segments()),
        text(service.repository.open_layers()),
        text(debts.iter().map(|(_, debt, _)| debt.wal_bytes).sum::<u64>()),
        text(debts.iter().map(|(_, debt, _)| debt.waiting).sum::<usize>()),
        text(debts.iter().map(|(_, debt, _)| debt.memory_bytes).sum::<u64>()),
        text(debts.iter().map(|(_, _, written)| written).sum::<u64>()),
        slowed(service, &debts),
        working(service),
        text(kept.len()),
        text(kept_bytes),
        oldest(service),
        text(found.removed_bytes),
        sweep.and_then(|sweep| text(sweep.left_bytes)),
        sweep.and_then(|sweep| text(sweep.held_bytes)),
        held_by(service, &found),
        problems(service)?,
    ])
}

/// From where on all history of the default branch can be asked for.
fn oldest(service: &PageService) -> Option<String> {
    let repository = &service.repository;
    let branch = repository.branch(&repository.default_branch().parse().ok()?).ok()?;
    text(repository.loaded_timeline(branch.timeline)?.oldest_lsn())
}

/// Who keeps history that the branches' own retention does not, those first who keep most; or why nothing is removed.
fn held_by(service: &PageService, found: &Collections) -> Option<String> {
    let problem = found.problem().map(str::to_owned);
    let held = found.sweep().map(|sweep| sweep.held.as_slice()).unwrap_or_default();
    let held = held
        .iter()
        .map(|(id, holder, bytes)| format!("{}: {bytes} bytes for {holder}", label(service, *id)));
    let texts: Vec<String> = problem.into_iter().chain(held).collect();
    (!texts.is_empty()).then(|| texts.join(" | "))
}

/// Of which branches WAL is taken in slowly, and why.
fn slowed(service: &PageService, debts: &[(TimelineId, Debt, u64)]) -> Option<String> {
    let slowed = debts.iter().filter(|(_, debt, _)| debt.is_slowed);
    let texts: Vec<String> = slowed
        .map(|(id, debt, _)| {
            let label = label(service, *id);
            format!("{label}: {} stretches of history wait to be written as layers", debt.waiting)
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join(" | "))
}

/// What is being done about layers of which branch, in one line.
fn working(service: &PageService) -> Option<String> {
    let work = |work: &WorkState| {
        let label = label(service, work.timeline);
        format!("{label}: {} {}, {} %", work.kind, work.lsn, work.percent())
    };
    let texts: Vec<String> = service.repository.works().list().iter().map(work).collect();
    (!texts.is_empty()).then(|| texts.join(" | "))
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

/// What is wrong with which branch or with all of them, in one line.
fn problems(service: &PageService) -> Result<Option<String>, CommandError> {
    let repository = &service.repository;
    repository.look_again();
    service.followers.resume_damaged();
    let problem = |(name, trouble): &(BranchName, Trouble)| match trouble {
        Trouble::Unreadable(failure) => format!("branch {:?} cannot be read: {failure}", &**name),
        Trouble::Stopped(stop) => format!("branch {:?} {stop}", &**name),
    };
    let mut problems: Vec<String> = repository.troubled()?.iter().map(problem).collect();
    let unreadable = repository.unreadable();
    problems
        .extend(unreadable.iter().map(|d| format!("{} cannot be used: {}", d.label(), d.cause)));
    let unusable = repository.tags()?.1;
    problems
        .extend(unusable.iter().map(|t| format!("tag {:?} cannot be used: {}", &*t.name, t.cause)));
    let damaged = service.followers.damaged();
    problems.extend(
        damaged
            .iter()
            .map(|(id, text)| format!("{} receives nothing: {text}", label(service, *id))),
    );
    if let Ok(facts) = service.followers.writers().list() {
        for (id, error) in facts.iter().filter_map(|(id, fact)| Some((id, fact.as_ref().err()?))) {
            if !damaged.contains_key(id) {
                let text = with_causes(error);
                problems.push(format!("{} can have no writer: {text}", label(service, *id)));
            }
        }
    }
    // What is in an image or the cache, or needs none of PostgreSQL's redo, is read all the same.
    problems.extend(repository.maker().redo_problem());
    Ok((!problems.is_empty()).then(|| problems.join(" | ")))
}

fn label(service: &PageService, timeline: TimelineId) -> String {
    match service.repository.branch_of(timeline) {
        Some(branch) => format!("branch {:?}", branch.name.as_str()),
        None => format!("timeline {timeline}"),
    }
}

/// The row of a branch whose files are damaged; none for a timeline without a name.
fn unreadable_row(damaged: &Unreadable) -> Option<Vec<Option<String>>> {
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

fn branch_row(service: &PageService, branch: &Branch) -> Vec<Option<String>> {
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

fn timeline_row(timeline: &Arc<Timeline>) -> Vec<Option<String>> {
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

fn follow_row(service: &PageService, follow: &FollowStatus) -> Vec<Option<String>> {
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

fn writer_list(service: &PageService) -> Result<Rows, CommandError> {
    let path = service.repository.dir().join("timelines");
    let facts = service.followers.writers().list();
    let facts = facts.map_err(|source| FollowError::Io { path, source })?;
    let row = |(id, fact): &(TimelineId, Result<WriterFact, FactError>)| {
        writer_row(service, *id, fact.as_ref().map(Some), None)
    };
    Ok(facts.iter().map(row).collect())
}

/// A timeline's writer and how it is followed; how far its WAL has come only if it is loaded.
fn writer_row(
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
