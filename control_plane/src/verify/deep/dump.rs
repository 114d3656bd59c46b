//! `pg_dumpall` of both servers, side by side: neither dump is ever kept.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;

use super::super::report::Verification;
use super::super::scratch::Scratch;
use super::super::{VerifyStep, Watcher};
use super::client::{Client, Started};
use crate::error::{Error, IoContext, Result};
use crate::process;

/// Versions that know the option would otherwise write a random key into each dump.
const RESTRICT_KEY: &str = "--restrict-key";
/// Bytes of both dumps that are looked at at once.
const BUFFER_BYTES: usize = 1 << 16;
/// How much of a line is told.
const SHOWN_BYTES: usize = 120;

/// Compares the dumps up to their first difference.
pub(super) fn compare(
    ours: &Client<'_>,
    theirs: &Client<'_>,
    scratch: &Scratch,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    let (mut our_dump, mut our_bytes) = start(ours, scratch)?;
    let (mut their_dump, mut their_bytes) = start(theirs, scratch)?;
    let compared = equal_start(&mut our_bytes, &mut their_bytes, |bytes| {
        watcher.tell(VerifyStep::Dumping { bytes })
    })?;
    report.deep_counts().dump.bytes = compared.bytes;
    // One that fails ends its output early.
    if their_bytes.fill_buf().io("read the output of", "pg_dumpall")?.is_empty() {
        let status = their_dump.wait()?;
        watcher.check()?;
        if !status.success() {
            let detail = format!("on the stock server: {}", their_dump.failure(status));
            return Err(Error::Program { program: "pg_dumpall".to_owned(), detail });
        }
    }
    if our_bytes.fill_buf().io("read the output of", "pg_dumpall")?.is_empty() {
        let status = our_dump.wait()?;
        watcher.check()?;
        if !status.success() {
            report.dump_differs(&compared.place(), our_dump.failure(status));
            return Ok(());
        }
    }
    let (our, their) =
        (shown(&compared.line, &mut our_bytes)?, shown(&compared.line, &mut their_bytes)?);
    if our != their {
        let line = compared.line_number;
        let detail = format!("line {line}: {our}, and {their} on the stock server");
        report.dump_differs(&compared.place(), detail);
    }
    Ok(())
}

fn start(client: &Client<'_>, scratch: &Scratch) -> Result<(Started, BufReader<ChildStdout>)> {
    let help = process::run_program("pg_dumpall", client.command("pg_dumpall")?.arg("--help"))?;
    let mut command = client.command("pg_dumpall")?;
    if help.contains(RESTRICT_KEY) {
        command.arg(format!("{RESTRICT_KEY}=zenith"));
    }
    let mut started = client.start(&mut command, scratch)?;
    let output = started.child.stdout.take().ok_or_else(|| Error::Program {
        program: "pg_dumpall".to_owned(),
        detail: "it has no output".to_owned(),
    })?;
    Ok((started, BufReader::with_capacity(BUFFER_BYTES, output)))
}

/// How far two dumps are equal.
#[derive(Default)]
struct Equal {
    bytes: u64,
    /// Number of the line that is not ended yet, from 1.
    line_number: u64,
    /// Its beginning.
    line: Vec<u8>,
    database: String,
    object: String,
}

impl Equal {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = SHOWN_BYTES.saturating_sub(self.line.len()).min(part.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or_default());
            if parts.peek().is_some() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        // Rows of tables may look like these; it is only for the reader.
        if let Some(database) = line.strip_prefix("\\connect ") {
            self.database = database.to_owned();
            self.object.clear();
        } else if let Some((_, object)) =
            line.strip_prefix("-- ").and_then(|comment| comment.split_once("Name: "))
        {
            self.object = object.to_owned();
        }
        self.line.clear();
        self.line_number += 1;
    }

    /// Where its end is.
    fn place(&self) -> String {
        [self.database.as_str(), self.object.as_str()].join(" ").trim().to_owned()
    }
}

/// Reads both as long as they are equal.
fn equal_start(
    ours: &mut impl BufRead,
    theirs: &mut impl BufRead,
    mut tell: impl FnMut(u64) -> Result<()>,
) -> Result<Equal> {
    let mut equal = Equal { line_number: 1, ..Equal::default() };
    loop {
        let our = ours.fill_buf().io("read the output of", "pg_dumpall")?;
        let their = theirs.fill_buf().io("read the output of", "pg_dumpall")?;
        let both = our.len().min(their.len());
        let same = our.iter().zip(their).take_while(|(our, their)| our == their).count();
        equal.add(our.get(..same).unwrap_or_default());
        ours.consume(same);
        theirs.consume(same);
        if same < both || both == 0 {
            return Ok(equal);
        }
        tell(equal.bytes)?;
    }
}

/// A line whose beginning has been read already.
fn shown(start: &[u8], rest: &mut impl BufRead) -> Result<String> {
    let rest = rest.fill_buf().io("read the output of", "pg_dumpall")?;
    if rest.is_empty() && start.is_empty() {
        return Ok("the end".to_owned());
    }
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let mut line = start.to_vec();
    line.extend(rest.iter().take(end.min(SHOWN_BYTES)));
    Ok(format!("{:?}", String::from_utf8_lossy(&line)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn compared(mut ours: &[u8], mut theirs: &[u8]) -> (u64, u64, String, String, String) {
        // Buffers of different sizes, so that they do not end at the same places.
        let mut our = BufReader::with_capacity(3, &mut ours);
        let mut their = BufReader::with_capacity(7, &mut theirs);
        let equal = equal_start(&mut our, &mut their, |_| Ok(())).unwrap();
        let lines =
            (shown(&equal.line, &mut our).unwrap(), shown(&equal.line, &mut their).unwrap());
        (equal.bytes, equal.line_number, equal.place(), lines.0, lines.1)
    }

    #[test]
    fn the_first_difference_is_told() {
        let same = b"\\connect a\n-- Data for Name: t; Type: TABLE DATA\n1\n2\n";
        let (bytes, _, _, ours, theirs) = compared(same, same);
        assert_eq!((bytes, ours, theirs), (same.len() as u64, "the end".into(), "the end".into()));
        let other = b"\\connect a\n-- Data for Name: t; Type: TABLE DATA\n1\n3\n";
        let (_, line, place, ours, theirs) = compared(same, other);
        assert_eq!((line, place.as_str()), (4, "a t; Type: TABLE DATA"));
        assert_eq!((ours.as_str(), theirs.as_str()), ("\"2\"", "\"3\""));
        let (_, line, _, ours, theirs) = compared(&same[..same.len() - 2], same);
        assert_eq!((line, ours.as_str(), theirs.as_str()), (4, "the end", "\"2\""));
    }
}
