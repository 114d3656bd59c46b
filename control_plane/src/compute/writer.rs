//! Which compute may write a branch: the page server decides, the computes here ask for the role,
//! carry it in their configuration, and are told when it has gone to another one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pageserver_client::{Generation, InstanceId, NO_WRITER, WriterId};
use postgres_formats::{Lsn, TimelineId};

use super::{Compute, Mode};
use crate::branch::Branch;
use crate::control::{Row, quote};
use crate::error::{Error, Result};
use crate::process;
use crate::repository::Repository;

/// The page server's SQLSTATE for a compute whose role has gone to another one.
pub(super) const FENCED: &str = "ZF001";
/// SQLSTATE of a role whose holder is still alive.
const OBJECT_IN_USE: &str = "55006";
/// SQLSTATE of a role whose holder is another than the one named.
const ROLE_TAKEN: &str = "55000";
/// So often a role is claimed whose holder changes meanwhile.
const CLAIM_ATTEMPTS_MAX: u32 = 5;
/// So long a writer that still runs is given to end. One that was just killed is connected to the page
/// server for a moment longer, until the last of its processes has noticed.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// SQLSTATE of a timeline that is not there.
const UNDEFINED_OBJECT: &str = "42704";
/// How a follower's state is called that finds a server there which must not be followed.
pub(super) const FENCED_STATE: &str = "fenced";

/// The compute that writes a timeline, or the last one that did, as the page server has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Writer {
    pub(crate) timeline: TimelineId,
    pub(crate) generation: Generation,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) name: String,
    /// Whether it still has the role.
    pub(crate) held: bool,
    pub(crate) since: String,
    /// Where history ended when it got the role.
    pub(crate) since_lsn: Lsn,
    /// How its WAL is received, if it is.
    pub(crate) state: Option<String>,
    pub(crate) message: Option<String>,
}

impl Writer {
    fn of(row: &Row) -> Result<Writer> {
        Ok(Writer {
            timeline: row.value("timeline")?,
            generation: row.optional_value("generation")?.unwrap_or(Generation::NONE),
            instance: row.optional_value("instance")?,
            name: row.optional("name").unwrap_or_default().to_owned(),
            held: row.optional("held") == Some("true"),
            since: row.optional("since").unwrap_or_default().to_owned(),
            since_lsn: row.optional_value("since_lsn")?.unwrap_or(Lsn::INVALID),
            state: row.optional("state").map(str::to_owned),
            message: row.optional("message").map(str::to_owned),
        })
    }

    /// Whether the role is, or was last, this compute's.
    fn is(&self, compute: &Compute) -> bool {
        self.instance.as_ref() == Some(&compute.instance)
    }

    /// Whether the role has gone from this compute, which had it or means to, to another one.
    fn fences(&self, compute: &Compute) -> bool {
        compute.continues(self.timeline) && self.generation != Generation::NONE && !self.is(compute)
    }
}

/// A compute that was made to go on where another one has been lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// Name of the one that was lost.
    pub name: String,
    /// Where its history ends and the new one's begins.
    pub at: Lsn,
}

impl Repository {
    /// Who writes `timeline`.
    pub(crate) fn writer(&self, timeline: TimelineId) -> Result<Writer> {
        Writer::of(&self.control()?.row(&format!("writer_show {timeline}"))?)
    }

    /// The compute of this repository that writes `timeline`, if there is one.
    pub(crate) fn writing_compute(&self, timeline: TimelineId) -> Result<Option<Compute>> {
        let mut computes = self.computes()?;
        computes.retain(|compute| compute.continues(timeline));
        if computes.is_empty() {
            return Ok(None);
        }
        let writer = self.writer(timeline)?;
        Ok(computes.into_iter().find(|compute| !writer.fences(compute)))
    }

    /// Names of the computes whose branch is written by another one by now. None while the page server
    /// does not run: it is the one who knows.
    pub fn fenced_computes(&self) -> Result<BTreeSet<String>> {
        if self.running_server().is_none() {
            return Ok(BTreeSet::new());
        }
        let writers = self.control()?.rows("writer_list")?;
        let writers = writers.iter().map(Writer::of).collect::<Result<Vec<_>>>()?;
        let fenced = |compute: &Compute| writers.iter().any(|writer| writer.fences(compute));
        Ok(self.computes()?.into_iter().filter(fenced).map(|compute| compute.name).collect())
    }

    /// Before a branch is deleted: nobody may be writing it. The role of a compute that was lost is
    /// taken from it, and the page server looks for it no longer.
    pub(crate) fn end_writing(&self, branch: &Branch) -> Result<()> {
        let name = &branch.name;
        if let Some(compute) = self.writing_compute(branch.timeline)? {
            let compute = compute.name;
            return Err(Error::Conflict(format!(
                "branch {name:?} has the compute {compute:?}; remove that first with `zenith pg \
                 destroy {compute}`"
            )));
        }
        let writer = self.writer(branch.timeline)?;
        if writer.state.as_deref() == Some("streaming") {
            return Err(Error::Conflict(format!(
                "branch {name:?} is written by the compute {:?}, which runs though its directory is \
                 not in this repository; stop it first",
                writer.name
            )));
        }
        match &writer.instance {
            Some(instance) if writer.held => self.release(branch.timeline, instance).map(drop),
            _ => Ok(()),
        }
    }

    /// Makes a compute the writer of `timeline`, after the one of `after`.
    fn claim(
        &self,
        timeline: TimelineId,
        instance: &InstanceId,
        name: &str,
        after: Generation,
    ) -> Result<Writer> {
        let command = format!("writer_claim {timeline} {instance} {} {after}", quote(name));
        Writer::of(&self.control()?.row(&command)?)
    }

    /// Takes the role from a compute, if it has it.
    pub(super) fn release(&self, timeline: TimelineId, instance: &InstanceId) -> Result<Writer> {
        Writer::of(&self.control()?.row(&format!("writer_release {timeline} {instance}"))?)
    }

    /// Claims the role from whoever has it; gives who that was. A command that was killed may have left
    /// a claim behind that the page server only hears now, and which must not stand in the way; nor
    /// must a server that ends.
    fn claim_after_present(
        &self,
        timeline: TimelineId,
        instance: &InstanceId,
        name: &str,
    ) -> Result<(Writer, Result<Writer>)> {
        let mut attempt = 1;
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            let before = self.writer(timeline)?;
            match self.claim(timeline, instance, name, before.generation) {
                Err(Error::PageServer { sqlstate, .. })
                    if sqlstate == ROLE_TAKEN && attempt < CLAIM_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(Error::PageServer { sqlstate, .. })
                    if sqlstate == OBJECT_IN_USE && Instant::now() < deadline =>
                {
                    std::thread::sleep(process::POLL_INTERVAL);
                }
                claimed => return Ok((before, claimed)),
            }
        }
    }

    /// Makes a new compute the writer of `branch`. If the one before is not in this repository any more,
    /// it is replaced.
    pub(super) fn claim_for_new(
        &self,
        branch: &Branch,
        instance: &InstanceId,
        name: &str,
    ) -> Result<(Writer, Option<Replaced>)> {
        let new_branch = if name == branch.name.as_str() { "NAME" } else { name };
        let offer =
            format!("make a branch for this one: `zenith branch {new_branch} {}`", branch.name);
        if let Some(other) = self.writing_compute(branch.timeline)? {
            return Err(Error::Conflict(format!(
                "branch {:?} has a read-write compute already, {:?}, and two would tear its history \
                 apart; {offer}",
                branch.name, other.name
            )));
        }
        let (before, claimed) = self.claim_after_present(branch.timeline, instance, name)?;
        let writer = claimed.map_err(|error| match error {
            Error::PageServer { sqlstate, .. } if sqlstate == OBJECT_IN_USE => {
                Error::Conflict(format!(
                    "the read-write compute {:?} of branch {:?} still runs, though its directory is \
                     not in this repository; stop it, or {offer}",
                    before.name, branch.name
                ))
            }
            other => other,
        })?;
        let replaced = before.held.then_some(Replaced { name: before.name, at: writer.since_lsn });
        Ok((writer, replaced))
    }
}

impl Compute {
    /// Whether another compute writes its branch by now. Asks the page server.
    pub fn is_fenced(&self) -> Result<bool> {
        if self.mode != Mode::ReadWrite {
            return Ok(false);
        }
        Ok(self.repository.writer(self.timeline)?.fences(self))
    }

    /// Refuses, with the reason, if another compute writes its branch by now. Asks the page server.
    pub(crate) fn refuse_if_fenced(&self) -> Result<()> {
        if self.mode != Mode::ReadWrite {
            return Ok(());
        }
        let writer = self.repository.writer(self.timeline)?;
        if writer.fences(self) { Err(self.fenced(&writer)) } else { Ok(()) }
    }

    /// The compute with its role as the page server has it, before it is started. Refused if the
    /// role has gone to another one.
    pub(super) fn as_writer(&self) -> Result<Compute> {
        let mut compute = self.clone();
        if self.mode != Mode::ReadWrite {
            return Ok(compute);
        }
        let mut writer = self.repository.writer(self.timeline)?;
        if writer.fences(self) {
            return Err(self.fenced(&writer));
        }
        if !writer.is(self) {
            // Made before there were roles; one that runs has no name yet, and gets it when it is
            // started again.
            if self.generation.is_none() && self.running().is_some() {
                return Ok(compute);
            }
            let (timeline, instance) = (self.timeline, &self.instance);
            writer = self.repository.claim(timeline, instance, &self.name, writer.generation)?;
        }
        if compute.generation != Some(writer.generation) {
            compute.generation = Some(writer.generation);
            let _identity = self.repository.account().enter();
            compute.write(&compute.layout)?;
        }
        Ok(compute)
    }

    /// Why it cannot be started, and what can be done.
    fn fenced(&self, writer: &Writer) -> Error {
        let (name, dir) = (&self.name, self.layout.dir().display());
        Error::Conflict(format!(
            "compute {name:?} does not write branch {:?} any more: compute {:?} has taken over at {} on \
             {}. What {name:?} has changed since then is only in its own directory, {dir}: remove it \
             with `zenith pg destroy {name}`; to save something first, set mode = \"detached\" in {}, \
             start it and use pg_dump",
            self.branch,
            writer.name,
            writer.since_lsn,
            writer.since,
            self.layout.compute_file().display()
        ))
    }

    /// What it says about itself in PostgreSQL's setting [`pageserver_client::WRITER_SETTING`].
    pub(super) fn writer_setting(&self) -> String {
        self.writer_id().map_or_else(|| NO_WRITER.to_owned(), |id| id.to_string())
    }

    /// As whom the page server follows it.
    pub(super) fn writer_id(&self) -> Option<WriterId> {
        if self.mode != Mode::ReadWrite {
            return None;
        }
        let (timeline, instance) = (self.timeline, self.instance.clone());
        self.generation.map(|generation| WriterId { timeline, instance, generation })
    }

    /// Gives the role back, and has the page server look for this compute no longer.
    pub(super) fn stop_writing(&self) -> Result<()> {
        let released = self.repository.release(self.timeline, &self.instance);
        let writer = match released {
            // Its branch has been deleted, which a compute that does not write it does not hinder.
            Err(Error::PageServer { sqlstate, .. }) if sqlstate == UNDEFINED_OBJECT => {
                return Ok(());
            }
            other => other?,
        };
        if writer.generation == Generation::NONE {
            let command = format!("forgetmemaybe {}", self.timeline);
            self.repository.control()?.rows(&command)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::tests::{compute, repository};
    use super::*;

    fn writer(timeline: u8, generation: u64, instance: &str) -> Writer {
        Writer {
            timeline: TimelineId::from_bytes([timeline; 16]),
            generation: Generation(generation),
            instance: Some(instance.parse().unwrap()),
            name: "other".to_owned(),
            held: true,
            since: "2026-11-22T10:00:00Z".to_owned(),
            since_lsn: Lsn::new(0x16B3748),
            state: None,
            message: None,
        }
    }

    #[test]
    fn only_a_writer_that_another_one_has_replaced_is_fenced() {
        let dir = tempfile::tempdir().unwrap();
        let repository = repository(dir.path());
        let mut made = compute(&repository, "x", Mode::ReadWrite, 1);
        assert_eq!(made.instance.as_str(), "1");
        assert!(!writer(1, 4, "1").fences(&made));
        assert!(!writer(1, 0, "2").fences(&made), "nobody has ever had the role");
        assert!(!writer(2, 4, "2").fences(&made), "another timeline");
        assert!(writer(1, 4, "2").fences(&made));
        assert!(Writer { held: false, ..writer(1, 4, "2") }.fences(&made));
        let text = made.fenced(&writer(1, 4, "2")).to_string();
        for part in ["\"other\" has taken over at 0/16B3748", "zenith pg destroy x", "detached"] {
            assert!(text.contains(part), "{text}");
        }
        made.mode = Mode::Detached;
        assert!(!writer(1, 4, "2").fences(&made));
    }

    #[test]
    fn a_compute_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = compute(&repository(dir.path()), "x", Mode::ReadWrite, 0xAB);
        assert_eq!(made.writer_setting(), NO_WRITER);
        made.generation = Some(Generation(7));
        assert_eq!(made.writer_setting(), format!("{} 1 7", "ab".repeat(16)));
        made.mode = Mode::Detached;
        assert_eq!(made.writer_setting(), NO_WRITER);
    }
}
