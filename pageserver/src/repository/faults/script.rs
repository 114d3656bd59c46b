//! The history: everything that changes files of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use durable_files::faults::Recorder;
use pageserver_client::{At, Point};
use postgres_formats::{Lsn, TimelineId};

use super::known::{Command, Event, Known, Line};
use super::{WINDOW_BYTES, open, options, removing_wal};
use crate::layer::freezer::LayerOptions;
use crate::repository::{LeaseRequest, Repository, Retention};
use crate::timeline::Timeline;
use crate::timeline::damage::sample::Sample;

/// One step of the history. Repeating one that has failed must succeed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// WAL up to so many bytes behind the branch's start, so many at a time.
    Receive(&'static str, usize, usize),
    /// Whether commits wait for a branch's WAL, from the next connection on: then each piece is synced.
    Await(&'static str, bool),
    /// The same by another connection.
    Reconnect(&'static str),
    Sync(&'static str),
    Freeze(&'static str),
    /// One delta layer of all there are, and an image at the end.
    Compact(&'static str),
    /// An image where the last delta layer ends.
    Image(&'static str),
    /// A branch of another one, at the end of its record with this number or at its end.
    Create(&'static str, &'static str, Option<usize>),
    Rename(&'static str, &'static str),
    Delete(&'static str),
    /// The timeline stays for those that stand on it.
    Reparent(&'static str),
    Protect(&'static str, bool),
    Expire(&'static str, Option<u64>),
    /// So many bytes of its history are kept.
    Retain(&'static str, u64),
    /// Layers go that nobody needs.
    Collect(&'static str),
    /// A tag at the end of a branch.
    Tag(&'static str, &'static str),
    Untag(&'static str),
    Detach(&'static str),
    /// A lease of somebody for the end of a branch's record with this number, besides what it has.
    Lease(&'static str, &'static str, usize),
    /// The lease is for this one only.
    Narrow(&'static str, &'static str, usize),
    EndLease(&'static str),
    /// The page server ends without a word and starts again.
    Restart,
    /// The same after it has been told to, and then WAL is removed that is in layers.
    Stop,
}

pub(super) const STEPS: &[Step] = &[
    // The first segment has 3000 bytes; the second begins in the middle of a record.
    Step::Receive("main", 1500, 700),
    Step::Sync("main"),
    Step::Receive("main", 4700, 1600),
    Step::Sync("main"),
    Step::Create("one", "main", Some(1)),
    Step::Receive("one", 900, 900),
    Step::Sync("one"),
    Step::Protect("one", true),
    Step::Freeze("main"),
    Step::Await("main", true),
    Step::Receive("main", 6100, 700),
    Step::Reconnect("main"),
    Step::Receive("main", 7000, 2000),
    Step::Rename("one", "two"),
    Step::Sync("main"),
    Step::Create("gone", "main", None),
    Step::Receive("gone", 700, 700),
    Step::Freeze("gone"),
    Step::Freeze("two"),
    Step::Delete("gone"),
    Step::Receive("main", 9000, 1000),
    Step::Freeze("main"),
    Step::Image("main"),
    Step::Receive("main", 9900, 900),
    Step::Expire("two", Some(4_000_000_000)),
    Step::Retain("two", 1 << 20),
    Step::Tag("v1", "two"),
    Step::Tag("v2", "main"),
    Step::Lease("pg", "main", 1),
    Step::Restart,
    Step::Untag("v1"),
    Step::Receive("main", 11_000, 500),
    Step::Await("main", false),
    Step::Receive("two", 1800, 500),
    Step::Sync("two"),
    Step::Protect("two", false),
    Step::Create("three", "two", None),
    Step::Lease("pg", "main", 3),
    Step::Narrow("pg", "main", 1),
    // From now on WAL goes that is in layers.
    Step::Stop,
    // Nobody receives before this.
    Step::Tag("v3", "main"),
    Step::Compact("two"),
    Step::Receive("three", 500, 500),
    Step::Sync("three"),
    Step::Freeze("main"),
    Step::Collect("main"),
    Step::EndLease("pg"),
    Step::Reparent("two"),
    // Nothing stands on "two" any more then.
    Step::Detach("three"),
    Step::Delete("three"),
];

type Failed = Box<dyn Error + Send + Sync>;

/// A repository in which the history happens.
pub(super) struct Script<'a> {
    dir: &'a Path,
    recorder: &'a Recorder,
    pub known: Known,
    pub repository: Option<Arc<Repository>>,
    options: LayerOptions,
    /// The branches for whose WAL commits wait.
    awaited: BTreeSet<&'static str>,
    /// What was received last, and where to go on, if nothing went wrong.
    receiving: BTreeMap<TimelineId, (usize, Option<Lsn>)>,
}

impl<'a> Script<'a> {
    /// A repository with the branch `main` without any WAL, in `dir`.
    pub fn prepare(dir: &Path) -> Sample {
        let mut sample = Sample::new(3000);
        let id = sample.manifest().id;
        let timeline = dir.join("timelines").join(id.to_string());
        fs::create_dir_all(dir.join("refs/branches")).unwrap();
        fs::write(dir.join("refs/branches/main"), id.to_string()).unwrap();
        for folder in ["wal", "layers"] {
            fs::create_dir_all(timeline.join(folder)).unwrap();
        }
        for file in ["pg_control", "layers/image"] {
            fs::copy(sample.dir.path().join(file), timeline.join(file)).unwrap();
        }
        sample.manifest().write(&timeline).unwrap();
        crate::leases::write_all_known(dir).unwrap();
        write(&mut sample, 1, 36);
        sample
    }

    pub fn new(dir: &'a Path, recorder: &'a Recorder, main: &Sample) -> Script<'a> {
        let mut known = Known::default();
        let id = main.manifest().id;
        known.lines.insert(id, line(main, 1, None));
        known.events.push((0, Event::Done(Command::Create("main".to_owned(), Some(id)))));
        let receiving = BTreeMap::new();
        let awaited = BTreeSet::new();
        Script { dir, recorder, known, repository: None, options: options(), awaited, receiving }
    }

    pub fn repository(&mut self) -> Result<Arc<Repository>, Failed> {
        if self.repository.is_none() {
            self.receiving.values_mut().for_each(|(_, next)| *next = None);
            self.repository = Some(open(self.dir, self.options)?);
        }
        Ok(self.repository.clone().unwrap())
    }

    pub fn timeline(&mut self, name: &str) -> Result<Arc<Timeline>, Failed> {
        let repository = self.repository()?;
        let branch = repository.branch(&name.parse()?)?;
        Ok(repository.timeline(branch.timeline)?)
    }

    pub fn note(&mut self, event: Event) {
        self.known.events.push((self.recorder.position(), event));
    }

    pub fn step(&mut self, step: Step) -> Result<(), Failed> {
        match step {
            Step::Receive(name, upto, piece) => self.receive(name, upto, piece)?,
            Step::Await(name, true) => {
                self.awaited.insert(name);
            }
            Step::Await(name, false) => {
                self.awaited.remove(name);
                // Its connection ends.
                self.timeline(name)?.commits_wait(false);
            }
            Step::Reconnect(name) => {
                let timeline = self.timeline(name)?;
                if let Some((_, next)) = self.receiving.get_mut(&timeline.id()) {
                    *next = None;
                }
                let next = self.restart(&timeline, name)?;
                self.receiving.insert(timeline.id(), (0, Some(next)));
            }
            Step::Sync(name) => {
                let timeline = self.timeline(name)?;
                // What has been given up after a failure comes again.
                let upto = self.receiving.get(&timeline.id()).map_or(0, |(upto, _)| *upto);
                self.receive(name, upto, 1000)?;
                if let Err(error) = timeline.sync_wal() {
                    self.receiving.insert(timeline.id(), (upto, None));
                    return Err(error.into());
                }
                self.note(Event::Durable(timeline.id(), timeline.positions().durable));
            }
            Step::Freeze(name) => {
                let timeline = self.timeline(name)?;
                let upto = self.receiving.get(&timeline.id()).map_or(0, |(upto, _)| *upto);
                self.receive(name, upto, 1000)?;
                let frozen = timeline.freeze();
                if frozen.is_err() {
                    self.receiving.insert(timeline.id(), (upto, None));
                }
                let end = frozen?.end;
                self.note(Event::Durable(timeline.id(), end));
            }
            Step::Compact(name) => {
                let timeline = self.timeline(name)?;
                timeline.compact()?;
                assert_eq!(timeline.layer_files().len(), 2, "a delta and an image");
            }
            Step::Image(name) => {
                let timeline = self.timeline(name)?;
                timeline.make_image(timeline.freeze()?.end)?;
            }
            Step::Create(name, of, record) => self.create(name, of, record)?,
            Step::Rename(old, new) => {
                let command = Command::Rename(old.to_owned(), new.to_owned());
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.rename_branch(&old.parse()?, &new.parse()?)?;
                self.note(Event::Done(command));
            }
            Step::Delete(name) => {
                let command = Command::Delete(name.to_owned());
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.delete_branch(&name.parse()?)?;
                self.note(Event::Done(command));
            }
            Step::Reparent(name) => {
                let command = Command::Delete(name.to_owned());
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.delete_branch_reparenting(&name.parse()?)?;
                self.note(Event::Done(command));
            }
            Step::Protect(name, protected) => {
                let command = Command::Protect(name.to_owned(), protected);
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.protect_branch(&name.parse()?, protected)?;
                self.note(Event::Done(command));
            }
            Step::Expire(name, expires) => {
                let command = Command::Expire(name.to_owned(), expires);
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.expire_branch(&name.parse()?, expires)?;
                self.note(Event::Done(command));
            }
            Step::Retain(name, bytes) => {
                let retention = Some(Retention { window_bytes: Some(bytes), window_seconds: None });
                let command = Command::Retain(name.to_owned(), retention);
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.retain_branch(&name.parse()?, retention)?;
                self.note(Event::Done(command));
            }
            Step::Collect(name) => {
                let timeline = self.timeline(name)?;
                let horizon = timeline.last_record_lsn().as_u64() - WINDOW_BYTES;
                self.note(Event::Collecting(timeline.id(), Lsn::new(horizon)));
                let collected = self.repository()?.collect(timeline.id())?;
                assert!(!collected.layers.is_empty(), "the history has no layer to be removed");
            }
            Step::Tag(name, of) => {
                let timeline = self.timeline(of)?;
                let command = Command::Tag(name.to_owned(), timeline.id());
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                let point = Point { branch: of.parse()?, at: At::End };
                repository.create_tag(&name.parse()?, &point, Duration::ZERO)?;
                self.note(Event::Durable(timeline.id(), timeline.last_record_lsn()));
                self.note(Event::Done(command));
            }
            Step::Untag(name) => {
                let command = Command::Untag(name.to_owned());
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.delete_tag(&name.parse()?)?;
                self.note(Event::Done(command));
            }
            Step::Detach(name) => {
                let timeline = self.timeline(name)?;
                let command = Command::Detach(timeline.id());
                let repository = self.repository()?;
                self.note(Event::Began(command.clone()));
                repository.detach(&name.parse()?)?;
                self.note(Event::Done(command));
            }
            Step::Lease(holder, of, record) => {
                let (timeline, lsn) = (self.timeline(of)?.id(), self.place(of, record)?);
                let repository = self.repository()?;
                let had = repository.leases().get(&holder.parse()?);
                let had = had.map(|lease| lease.lsns).unwrap_or_default();
                let command =
                    Command::Lease(holder.to_owned(), timeline, [had, vec![lsn]].concat());
                let request = LeaseRequest {
                    holder: holder.parse()?,
                    name: holder.parse()?,
                    timeline,
                    lsn,
                    since: false,
                    lasts: None,
                };
                self.note(Event::Began(command.clone()));
                repository.lease(&request, Duration::ZERO)?;
                self.note(Event::Done(command));
            }
            Step::Narrow(holder, of, record) => {
                let (timeline, lsn) = (self.timeline(of)?.id(), self.place(of, record)?);
                let repository = self.repository()?;
                let command = Command::Lease(holder.to_owned(), timeline, vec![lsn]);
                self.note(Event::Began(command.clone()));
                repository.narrow_lease(&holder.parse()?, lsn)?;
                self.note(Event::Done(command));
            }
            Step::EndLease(holder) => {
                let repository = self.repository()?;
                let command = Command::EndLease(holder.to_owned());
                self.note(Event::Began(command.clone()));
                repository.drop_lease(&holder.parse()?)?;
                self.note(Event::Done(command));
            }
            Step::Restart => {
                self.repository = None;
                self.load_all()?;
            }
            Step::Stop => {
                if let Some(repository) = self.repository.take() {
                    repository.shut_down();
                }
                self.options = removing_wal();
                self.load_all()?;
            }
        }
        Ok(())
    }

    fn place(&mut self, of: &str, record: usize) -> Result<Lsn, Failed> {
        let id = self.timeline(of)?.id();
        Ok(self.known.lines[&id].versions[record].0)
    }

    fn load_all(&mut self) -> Result<(), Failed> {
        for branch in self.repository()?.branches()? {
            self.timeline(&branch.name)?;
        }
        Ok(())
    }

    /// Has a timeline receive by a new connection; says from where.
    fn restart(&self, timeline: &Timeline, name: &str) -> Result<Lsn, Failed> {
        let next = timeline.restart_receiving()?;
        timeline.commits_wait(self.awaited.contains(name));
        Ok(next)
    }

    fn receive(&mut self, name: &str, upto: usize, piece: usize) -> Result<(), Failed> {
        let timeline = self.timeline(name)?;
        let id = timeline.id();
        let next = self.receiving.get(&id).and_then(|(_, next)| *next);
        self.receiving.insert(id, (upto, None));
        let mut next = match next {
            Some(next) => next,
            None => self.restart(&timeline, name)?,
        };
        let line = &self.known.lines[&id];
        let end = line.start.saturating_add(upto.min(line.wal.len()) as u64);
        while next < end {
            let left = end.distance_from(next).unwrap() as usize;
            let bytes = &line.wal_from(next)[..left.min(piece)];
            timeline.receive_wal(next, bytes)?;
            next = next.saturating_add(bytes.len() as u64);
            if self.awaited.contains(name) {
                timeline.sync_wal()?;
                let durable = timeline.positions().durable;
                self.known.events.push((self.recorder.position(), Event::Durable(id, durable)));
            }
        }
        self.receiving.insert(id, (upto, Some(next)));
        Ok(())
    }

    fn create(&mut self, name: &str, of: &str, record: Option<usize>) -> Result<(), Failed> {
        let parent = self.timeline(of)?;
        let at = match record {
            Some(number) => At::Lsn(self.known.lines[&parent.id()].versions[number].0),
            None => At::End,
        };
        let repository = self.repository()?;
        self.note(Event::Began(Command::Create(name.to_owned(), None)));
        let point = Point { branch: of.parse()?, at };
        let branch = repository.create_branch(&name.parse()?, &point, Duration::ZERO)?;
        self.note(Event::Done(Command::Create(name.to_owned(), Some(branch.timeline))));
        let ancestor = branch.ancestor.unwrap();
        let timeline = repository.timeline(branch.timeline)?;
        let prev = timeline.manifest().state.prev_record;
        let first = 100 + 20 * self.known.lines.len() as u8;
        let mut sample = Sample::going_on(branch.start, prev);
        write(&mut sample, first, 6);
        let line = line(&sample, first, Some((ancestor.timeline, ancestor.lsn)));
        self.known.lines.insert(branch.timeline, line);
        Ok(())
    }
}

fn length(content: u8) -> u16 {
    200 + 7 * u16::from(content)
}

fn write(sample: &mut Sample, first: u8, count: u8) {
    for content in first..first + count {
        sample.write_page(content, length(content));
    }
}

fn line(sample: &Sample, first: u8, ancestor: Option<(TimelineId, Lsn)>) -> Line {
    let wal = sample.writer.bytes().to_vec();
    let pages = (first..).map(|content| (content, length(content)));
    let versions = sample.ends.iter().copied().zip(pages).collect();
    Line { ancestor, start: sample.start, wal, versions }
}
