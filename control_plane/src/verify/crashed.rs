//! The data directory of a crashed server, which a stock server then recovers.
//!
//! Where all WAL is kept `pageserver materialize` makes it of the base image and raw WAL alone. Where some
//! was removed, recovery begins later, with any record from which on it is kept: the files as they
//! were there are the page server's own, from a base backup with all pages. What begins recovery is a
//! checkpoint that says so, whose record is made and put behind the last one (`postgres_formats::wal::synth`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres_formats::control_file::{CONTROL_FILE_PATH, ClusterState, ControlFile};
use postgres_formats::wal::{WalOrigin, WalWriter, synth};
use postgres_formats::{Lsn, TimelineId};

use super::scratch::Scratch;
use super::{Watcher, counters};
use crate::companions;
use crate::compute::unpack_base_backup;
use crate::error::{Error, IoContext, Result};
use crate::process;
use crate::repository::Repository;

const PROGRAM: &str = "pageserver materialize";
/// The folder of WAL in a data directory.
const WAL: &str = "pg_wal";

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crashed {
    /// Start of the last record of its WAL.
    pub last_record: Lsn,
    /// Whether commit timestamps are tracked at its end.
    pub tracks_commit_timestamps: bool,
    /// Where recovery begins; `None`: with the base image at the beginning of history.
    pub since: Option<Lsn>,
}

/// What `pageserver materialize` says.
struct Materialized {
    end: Lsn,
    last_record: Lsn,
    tracks_commit_timestamps: Option<bool>,
    begins: Option<Lsn>,
}

/// Lays it out in the empty folder `pgdata`, with the WAL of `timeline` up to the end of `history`, from whose
/// start on the page server answers.
pub(super) fn lay_out(
    repository: &Repository,
    scratch: &Scratch,
    pgdata: &Path,
    timeline: TimelineId,
    history: Range<Lsn>,
    watcher: &Watcher<'_>,
) -> Result<Crashed> {
    let made = materialize(repository, pgdata, timeline, history);
    // Ctrl-C ends that process as well, which is not the error to tell.
    watcher.check()?;
    let made = made?;
    let (last_record, base) = match made.begins {
        None => (made.last_record, None),
        Some(begins) => {
            let (record, control) =
                complete(repository, scratch, pgdata, timeline, begins, &made, watcher)?;
            (record, Some(control))
        }
    };
    let tracked = made
        .tracks_commit_timestamps
        .or(base.map(|control| control.parameters.track_commit_timestamp));
    Ok(Crashed {
        last_record,
        tracks_commit_timestamps: tracked.unwrap_or(false),
        since: made.begins,
    })
}

fn materialize(
    repository: &Repository,
    pgdata: &Path,
    timeline: TimelineId,
    history: Range<Lsn>,
) -> Result<Materialized> {
    let mut command = Command::new(companions::find(companions::PAGESERVER)?);
    command.arg("materialize").arg("--repo").arg(repository.dir());
    command.args(["--timeline", &timeline.to_string(), "--lsn", &history.end.to_string()]);
    command.args(["--since", &history.start.to_string()]);
    command.arg("--into").arg(pgdata).current_dir(repository.dir());
    let account = repository.account();
    if account.must_switch() {
        let (uid, gid) = account.ids();
        command.arg("--run-as").arg(format!("{uid}:{gid}"));
    }
    let said = process::run_program(PROGRAM, &mut command)?;
    parse(&said).ok_or_else(|| failed(&format!("it printed {said:?}")))
}

fn parse(line: &str) -> Option<Materialized> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [end, last_record, tracked, begins] = words[..] else { return None };
    Some(Materialized {
        end: end.parse().ok()?,
        last_record: last_record.parse().ok()?,
        tracks_commit_timestamps: match tracked {
            "on" => Some(true),
            "off" => Some(false),
            "-" => None,
            _ => return None,
        },
        begins: match begins {
            "-" => None,
            lsn => Some(lsn.parse().ok()?),
        },
    })
}

/// Puts everything there besides the WAL, as it was at `begins`, and the checkpoint with which
/// recovery begins. Gives the start of its record and the control file.
fn complete(
    repository: &Repository,
    scratch: &Scratch,
    pgdata: &Path,
    timeline: TimelineId,
    begins: Lsn,
    made: &Materialized,
    watcher: &Watcher<'_>,
) -> Result<(Lsn, ControlFile)> {
    let mut control = repository.control()?;
    let _identity = repository.account().enter();
    let (wal, aside) = (pgdata.join(WAL), scratch.path(WAL));
    fs::rename(&wal, &aside).io("rename", &wal)?;
    let unpacked = control.copy_out(&format!("basebackup {timeline} {begins} whole"), |stream| {
        let stream = Interruptible { stream, interrupted: watcher.interrupted };
        unpack_base_backup(stream, pgdata, &scratch.path("presence"))
    });
    watcher.check()?;
    unpacked?;
    // Its own WAL is that of a server which was stopped here and goes on by itself.
    fs::remove_dir_all(&wal).io("remove", &wal)?;
    fs::rename(&aside, &wal).io("rename", &aside)?;
    let folder = wal.join("archive_status");
    fs::DirBuilder::new().mode(0o700).create(&folder).io("create", &folder)?;

    let path = pgdata.join(CONTROL_FILE_PATH);
    let bytes = fs::read(&path).io("read", &path)?;
    let mut file = counters::decoded(&bytes)?;
    if file.check_point != begins {
        return Err(failed(&format!(
            "it begins at {begins}, and the page server has no record there but at {}",
            file.check_point
        )));
    }
    // Not "shut down": then PostgreSQL would not look at any WAL behind the checkpoint.
    file.state = ClusterState::InProduction;
    file.check_point = append_checkpoint(&wal, &file, made)?;
    fs::write(&path, file.encode()).io("write", &path)?;
    Ok((file.check_point, file))
}

/// Appends the record of a checkpoint to the WAL in `folder`: the one of `file`, as that of a running
/// server. Gives its start.
fn append_checkpoint(folder: &Path, file: &ControlFile, made: &Materialized) -> Result<Lsn> {
    let size = file.xlog_seg_size;
    let tli = file.check_point_copy.this_tli;
    let origin = WalOrigin { system_id: file.system_identifier, tli, seg_size: size };
    let begins_page = made.end.page_offset() == made.end.page_header_size(size);
    let start = if begins_page { made.end.page_start() } else { made.end };
    let mut writer = WalWriter::new(start, made.last_record, origin);
    let record = synth::online_checkpoint_record(made.last_record, &file.check_point_copy);
    let (record, _) = writer.append_bytes(&record);
    let (mut at, mut rest) = (writer.start(), writer.bytes());
    while !rest.is_empty() {
        let room = size.bytes() - at.segment_offset(size);
        let (piece, later) = rest.split_at(rest.len().min(room as usize));
        let path = folder.join(at.segment(size).file_name(tli, size));
        let segment = File::options().write(true).create(true).truncate(false).open(&path);
        let segment = segment.io("open", &path)?;
        segment.write_all_at(piece, at.segment_offset(size)).io("write", &path)?;
        segment.set_len(size.bytes()).io("set the size of", &path)?;
        at = at.saturating_add(piece.len() as u64);
        rest = later;
    }
    Ok(record)
}

/// A stream that ends with an error once it is to.
struct Interruptible<'s> {
    stream: &'s mut dyn Read,
    interrupted: &'s AtomicBool,
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.interrupted.load(Ordering::Relaxed) {
            // Not `Interrupted`, after which it would be tried again.
            true => Err(io::Error::other("interrupted")),
            false => self.stream.read(buffer),
        }
    }
}

fn failed(detail: &str) -> Error {
    Error::Program { program: PROGRAM.to_owned(), detail: detail.to_owned() }
}
