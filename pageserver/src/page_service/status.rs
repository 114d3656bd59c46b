//! `status`: what the page server says of itself in one row.

use pageserver_client::BranchName;
use postgres_formats::TimelineId;
use walredo_pool::WalRedoPool;

use super::PageService;
use super::error::CommandError;
use super::table::text;
use crate::collector::Collections;
use crate::error_text::with_causes;
use crate::repository::Trouble;
use crate::timeline::Debt;
use crate::wal::follower::FollowState;
use crate::work::WorkState;

/// The row.
pub(super) fn status(service: &PageService) -> Result<Vec<Option<String>>, CommandError> {
    let maker = service.repository.maker();
    let cache = maker.cache.stats();
    let redo = maker.pool().map(WalRedoPool::stats);
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
        text(service.streams.batches()),
        text(service.streams.requests()),
        text(service.streams.pages()),
        text(maker.pool().map_or(0, WalRedoPool::processes)),
        text(redo.map_or(0, |redo| redo.pages)),
        text(redo.map_or(0, |redo| redo.records)),
        text(maker.ahead.pages()),
        text(maker.ahead.records()),
        text(maker.backlog.len()),
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
