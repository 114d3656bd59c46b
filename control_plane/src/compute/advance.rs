//! Moving the base LSN of a compute forward, so that the page server need not keep older history
//! for its sake. Why that is right at any moment, while the compute runs, too, is in
//! `lazyfiles/SAFETY.md`; here it is made sure that the conditions hold.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lazyfiles::base::{self, BaseError, BaseLsn};
use postgres_formats::Lsn;
use postgres_formats::checkpoint::CHECKPOINT_SIZE;
use postgres_formats::control_file::{CONTROL_FILE_PATH, ClusterState, ControlFile};
use postgres_formats::lsn::XLOG_BLCKSZ;
use postgres_wire::client::ConnectParams;

use super::layout::Layout;
use super::{Compute, Mode};
use crate::control::Control;
use crate::error::{Error, IoContext, Result};
use crate::process;

/// How long the page server may take to receive what is asked for.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Length of a checkpoint's record: header, head of its data, data (`xlogrecord.h`).
const CHECKPOINT_RECORD_BYTES: u64 = 24 + 2 + CHECKPOINT_SIZE as u64;

/// A base LSN before and after a move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advance {
    /// Where it was.
    pub from: Lsn,
    /// Where it is now.
    pub to: Lsn,
}

/// Makes the file with the base LSN of a new compute.
pub(super) fn create(layout: &Layout, lsn: Lsn) -> Result<()> {
    let path = layout.base();
    fs::write(&path, base::encode(lsn)).io("create", &path)
}

/// The base LSN of the compute in `layout`; `None` if it has no file for it.
pub(super) fn read(layout: &Layout) -> Option<Lsn> {
    BaseLsn::open(&layout.base()).ok().map(|base| base.get())
}

fn unusable(path: &Path, error: BaseError) -> Error {
    Error::Corrupt { path: path.to_owned(), detail: error.to_string() }
}

impl Compute {
    /// Moves the base LSN forward to `target`, or as far as the page server has received this
    /// compute's WAL, and waits until it has received that.
    ///
    /// The compute runs, or was stopped cleanly. It must be the one that continues its branch:
    /// nobody else has the WAL of a detached one.
    pub fn advance_base(&self, target: Option<Lsn>) -> Result<Advance> {
        let _lock = self.lock()?;
        let from = self.base_lsn();
        if self.mode == Mode::Detached {
            return Err(Error::Conflict(format!(
                "compute {:?} is detached: what it writes is not received by the page server, so \
                 its base LSN stays at {from}",
                self.name
            )));
        }
        if let Some(target) = target.filter(|target| *target < from) {
            return Err(Error::InvalidArgument(format!(
                "the base LSN of compute {:?} is {from} already, and it does not go back to {target}",
                self.name
            )));
        }
        let to = match self.running() {
            Some(_) => self.received_while_running(target)?,
            None => match (self.received_at_stop()?, target) {
                (Some(end), Some(target)) if target > end => {
                    return Err(self.not_received(target, end));
                }
                (Some(end), target) => target.unwrap_or(end),
                (None, _) => {
                    return Err(Error::Conflict(format!(
                        "compute {:?} does not run, and the page server has not received all that \
                         it wrote; start it first: `zenith pg start {0}`",
                        self.name
                    )));
                }
            },
        };
        self.move_base(to)?;
        Ok(Advance { from, to: self.base_lsn() })
    }

    /// The same after a clean stop and before a start, as far as it goes without waiting. That it
    /// does not is no error: older history is there for the time being.
    pub(super) fn advance_stopped(&self) {
        let received = match self.mode {
            Mode::ReadWrite => self.received_at_stop(),
            Mode::Detached => Ok(None),
        };
        if let Ok(Some(end)) = received {
            let _ = self.move_base(end);
        }
    }

    /// The same for a compute that runs.
    pub(super) fn advance_running(&self) {
        if self.mode == Mode::ReadWrite
            && let Ok(compute) = &mut self.control()
            && let Ok(Some(received)) = self.received_of(compute)
        {
            let _ = self.move_base(received);
        }
    }

    /// Where the base is kept, made from `zenith-compute.toml` for a compute of an earlier release.
    pub(super) fn ensure_base(&self) -> Result<()> {
        let path = self.layout.base();
        match BaseLsn::open(&path) {
            Ok(_) => Ok(()),
            Err(BaseError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                durable_files::write_file(&path, &base::encode(self.base_lsn)).io("write", &path)
            }
            Err(error) => Err(unusable(&path, error)),
        }
    }

    /// What is needed there is kept before, and what was needed before is when the move is durable: whatever breaks
    /// off in between, the page server keeps too much.
    fn move_base(&self, to: Lsn) -> Result<()> {
        if to <= self.base_lsn() {
            return Ok(());
        }
        self.hold(to)?;
        self.write_base(to)?;
        // If this fails, the next start does it.
        let _ = self.hold_only(to);
        Ok(())
    }

    fn write_base(&self, to: Lsn) -> Result<()> {
        let _identity = self.repository.account().enter();
        self.ensure_base()?;
        let path = self.layout.base();
        let base = BaseLsn::open(&path).map_err(|error| unusable(&path, error))?;
        base.advance(to).io("write", &path)
    }

    fn not_received(&self, target: Lsn, received: Lsn) -> Error {
        Error::Conflict(format!(
            "the base LSN of compute {:?} cannot be {target} yet: the page server has received \
             what it wrote up to {received}",
            self.name
        ))
    }

    /// How far the running compute's WAL has been received: at least `target`, for which it waits.
    fn received_while_running(&self, target: Option<Lsn>) -> Result<Lsn> {
        let mut compute = self.control()?;
        let durable: Lsn = compute.row("select pg_current_wal_flush_lsn() as lsn")?.value("lsn")?;
        if let Some(target) = target.filter(|target| *target > durable) {
            return Err(self.not_received(target, durable));
        }
        let deadline = Instant::now() + RECEIVE_TIMEOUT;
        loop {
            let received = self.received_of(&mut compute)?;
            match (received, target) {
                (Some(received), None) => return Ok(received),
                (Some(received), Some(target)) if received >= target => return Ok(target),
                _ if Instant::now() < deadline => std::thread::sleep(process::POLL_INTERVAL),
                (Some(received), Some(target)) => return Err(self.not_received(target, received)),
                (None, _) => {
                    return Err(Error::Conflict(format!(
                        "the page server does not follow compute {:?}; see {}",
                        self.name,
                        self.repository.server_log().display()
                    )));
                }
            }
        }
    }

    /// How far the page server has told the running compute that it has made its WAL durable;
    /// `None` if it does not follow this compute at the moment. The compute has sent no WAL that was
    /// not durable on its own disk before.
    fn received_of(&self, compute: &mut Control) -> Result<Option<Lsn>> {
        if !self.is_followed()? {
            return Ok(None);
        }
        // The slot is this timeline's; whoever else replicates has another one.
        let confirmed = format!(
            "select s.flush_lsn from pg_stat_replication s \
             join pg_replication_slots r on r.active_pid = s.pid \
             where r.slot_name = 'zenith_{}' and s.flush_lsn is not null",
            self.timeline
        );
        let rows = compute.rows(&confirmed)?;
        rows.first().map(|row| row.value("flush_lsn")).transpose()
    }

    /// Whether it is this compute's WAL, and no other's, that the page server takes for the timeline.
    fn is_followed(&self) -> Result<bool> {
        let mut control = self.repository.control()?;
        let writer = control.row(&format!("writer_show {}", self.timeline))?;
        if matches!(writer.optional("state"), None | Some("broken")) {
            return Ok(false);
        }
        if let Some(instance) = writer.optional("instance") {
            return Ok(instance == self.instance.as_str());
        }
        // Nobody has claimed to be the writer: then it is who is followed.
        let address = self.repository.server_address()?;
        let connstr = self.socket_connstr(&super::run::socket_dir(&address.unix)?);
        let params: std::result::Result<ConnectParams, _> = connstr.parse();
        let Ok(params) = params else { return Ok(false) };
        let own = format!("{} user={}", params.address(), params.user);
        let timeline = self.timeline.to_string();
        Ok(control.rows("compute_list")?.iter().any(|row| {
            row.optional("timeline") == Some(&timeline) && row.optional("connstr") == Some(&own)
        }))
    }

    /// The end of what the compute wrote before it was stopped cleanly, if the page server has
    /// received exactly that; `None` if it was not stopped cleanly, or has written more or less.
    fn received_at_stop(&self) -> Result<Option<Lsn>> {
        let path = self.layout.pgdata().join(CONTROL_FILE_PATH);
        let bytes = fs::read(&path).io("read", &path)?;
        let control = ControlFile::decode(&bytes)
            .map_err(|error| Error::Corrupt { path, detail: error.to_string() })?;
        let (end, base) = (end_of_shutdown(&control), self.base_lsn());
        if base == end {
            return Ok(Some(end));
        }
        // One that was never started was shut down at its base, and has written nothing.
        let is_new = control.check_point == base;
        if control.state != ClusterState::ShutDown || is_new || !self.is_followed()? {
            return Ok(None);
        }
        Ok((self.repository.last_record_lsn(self.timeline)? == end).then_some(end))
    }
}

/// Where the record after the checkpoint of a clean stop will begin. It is the last one.
fn end_of_shutdown(control: &ControlFile) -> Lsn {
    let start = control.check_point;
    let mut end = start.saturating_add(CHECKPOINT_RECORD_BYTES);
    let next_page = start.page_start().saturating_add(XLOG_BLCKSZ);
    if end > next_page {
        end = end.saturating_add(next_page.page_header_size(control.xlog_seg_size));
    }
    end.align_up().normalized(control.xlog_seg_size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use postgres_formats::SystemId;

    use super::*;

    #[test]
    fn the_end_of_a_clean_stop() {
        let mut control = ControlFile::for_new_cluster(SystemId(7));
        let mut end = |at: u64| {
            control.set_shut_down(Lsn::new(at), control.check_point_copy);
            end_of_shutdown(&control).as_u64()
        };
        assert_eq!(end(0x16B3748), 0x16B3748 + 120);
        // To the last byte of a page, and one record that goes on behind a page's header.
        assert_eq!(end(0x1002000 - 120), 0x1002000 + 24);
        assert_eq!(end(0x1002000 - 112), 0x1002000 + 24 + 8);
        assert_eq!(end(0x1002000 - 8), 0x1002000 + 24 + 112);
        // The same at the end of a segment, where the header is longer.
        assert_eq!(end(0x2000000 - 8), 0x2000000 + 40 + 112);
    }

    #[test]
    fn a_base_is_found_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        assert_eq!(read(&layout), None);
        create(&layout, Lsn::new(0x1000028)).unwrap();
        assert_eq!(read(&layout), Some(Lsn::new(0x1000028)));
    }
}
