//! The records of a timeline and its ancestors, as `pageserver wal` gives their bytes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use bytes::Bytes;
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::{WalRecord, WalStreamDecoder};
use postgres_formats::{Lsn, SystemId, TimelineId};

use crate::companions;
use crate::error::{Error, IoContext, Result};
use crate::repository::Repository;

/// Bytes handed to the decoder at once.
const CHUNK_BYTES: usize = 1 << 18;
/// The program, in messages.
const PROGRAM: &str = "pageserver wal";

/// The stream. Its process ends with it.
pub(in crate::verify) struct RecordStream {
    process: Child,
    stdout: BufReader<ChildStdout>,
    decoder: WalStreamDecoder,
    start: Lsn,
    system_id: SystemId,
    segment_size: WalSegmentSize,
}

/// Bytes of WAL, and where they stand.
pub(in crate::verify) type Raw = (Lsn, Bytes);

impl RecordStream {
    /// Begins with a record at or before `since`, by default with the first there is.
    pub fn open(
        repository: &Repository,
        timeline: TimelineId,
        since: Option<Lsn>,
        lsn: Lsn,
    ) -> Result<RecordStream> {
        let mut command = Command::new(companions::find(companions::PAGESERVER)?);
        command.arg("wal").arg("--repo").arg(repository.dir());
        command.args(["--timeline", &timeline.to_string(), "--lsn", &lsn.to_string()]);
        if let Some(since) = since {
            command.args(["--from", &since.to_string()]);
        }
        let account = repository.account();
        if account.must_switch() {
            let (uid, gid) = account.ids();
            command.arg("--run-as").arg(format!("{uid}:{gid}"));
        }
        command.current_dir(repository.dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().io("run", command.get_program())?;
        let stdout =
            process.stdout.take().map(|stdout| BufReader::with_capacity(CHUNK_BYTES, stdout));
        let Some(mut stdout) = stdout else { unreachable!("it was asked for") };
        let mut line = String::new();
        stdout.read_line(&mut line).io("read from", PROGRAM)?;
        match parse_first_line(&line) {
            Some((start, size, system_id)) => {
                let decoder = WalStreamDecoder::new(start, size, Some(system_id));
                Ok(RecordStream { process, stdout, decoder, start, system_id, segment_size: size })
            }
            None => Err(ended(&mut process)),
        }
    }

    /// Start of the first record.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// The cluster.
    pub fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// Size of its segments.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.segment_size
    }

    /// Start of the last record given, and where the next would begin.
    pub fn end(&self) -> (Option<Lsn>, Lsn) {
        (self.decoder.last_record_start(), self.decoder.next_record_start())
    }

    /// The next record; `None` at the end.
    pub fn next(&mut self) -> Result<Option<WalRecord>> {
        self.next_with(&mut |_| Ok(()))
    }

    /// The same, with a look at the raw bytes on their way to the decoder.
    pub fn next_with(
        &mut self,
        look: &mut dyn FnMut(Raw) -> Result<()>,
    ) -> Result<Option<WalRecord>> {
        loop {
            let record = self.decoder.next_record().map_err(|error| Error::Program {
                program: PROGRAM.to_owned(),
                detail: error.to_string(),
            })?;
            if record.is_some() {
                return Ok(record);
            }
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = self.stdout.read(&mut chunk).io("read from", PROGRAM)?;
            if count == 0 {
                let status = self.process.wait().io("wait for", PROGRAM)?;
                return if status.success() { Ok(None) } else { Err(ended(&mut self.process)) };
            }
            chunk.truncate(count);
            let lsn = self.decoder.expected_lsn();
            let chunk = Bytes::from(chunk);
            look((lsn, chunk.clone()))?;
            self.decoder.feed_bytes(lsn, chunk).map_err(|error| Error::Program {
                program: PROGRAM.to_owned(),
                detail: error.to_string(),
            })?;
        }
    }
}

impl Drop for RecordStream {
    fn drop(&mut self) {
        // Fails only if it was reaped before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parse_first_line(line: &str) -> Option<(Lsn, WalSegmentSize, SystemId)> {
    let mut words = line.split_whitespace();
    let start = words.next()?.parse().ok()?;
    let size = WalSegmentSize::new(words.next()?.parse().ok()?)?;
    Some((start, size, SystemId(words.next()?.parse().ok()?)))
}

/// It has ended, or is about to, and this is why.
fn ended(process: &mut Child) -> Error {
    let mut said = String::new();
    if let Some(stderr) = &mut process.stderr {
        let _ = stderr.read_to_string(&mut said);
    }
    let _ = process.wait();
    let detail = crate::process::last_line(&said).unwrap_or("it ended").to_owned();
    Error::Program { program: PROGRAM.to_owned(), detail }
}
