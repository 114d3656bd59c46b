//! What a process writes to its standard error, as log messages.

use std::collections::VecDeque;

use slog::Logger;

use crate::limits::STDERR_LINE_BYTES_MAX;

/// Lines that are kept to explain the process's death.
const LAST_LINES: usize = 4;

/// Cuts the bytes into lines and logs each.
pub struct StderrLog {
    log: Logger,
    line: Vec<u8>,
    /// The line was longer than the limit and the rest of it is thrown away.
    skipping: bool,
    last: VecDeque<String>,
}

impl StderrLog {
    /// Logs to `log`, which names the process.
    pub fn new(log: Logger) -> StderrLog {
        StderrLog { log, line: Vec::new(), skipping: false, last: VecDeque::new() }
    }

    /// More was written.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < STDERR_LINE_BYTES_MAX {
                self.line.push(byte);
            } else if !self.skipping {
                self.skipping = true;
            }
        }
    }

    fn end_line(&mut self) {
        let mut text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        if self.skipping {
            text.push_str(" ...");
        }
        self.line.clear();
        self.skipping = false;
        if text.is_empty() {
            return;
        }
        // PostgreSQL's severities; a log message of ours at "error" means that a human must look.
        match text.split_once(':').map(|(severity, _)| severity) {
            Some("PANIC" | "FATAL") => slog::error!(self.log, "redo process: {text}"),
            Some("ERROR" | "WARNING") => slog::warn!(self.log, "redo process: {text}"),
            _ => slog::info!(self.log, "redo process: {text}"),
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }

    /// The last lines, for a message about the process's end.
    pub fn last_lines(&mut self) -> String {
        self.end_line();
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_cuts_long_ones() {
        let mut log = StderrLog::new(Logger::root(slog::Discard, slog::o!()));
        log.push(b"one\ntwo\nthr");
        log.push(b"ee\n\nfour\nPANIC:  five");
        assert_eq!(log.last_lines(), "two | three | four | PANIC:  five");
        log.push(&vec![b'x'; 10 * STDERR_LINE_BYTES_MAX]);
        assert!(log.last_lines().len() < STDERR_LINE_BYTES_MAX + 100);
    }
}
