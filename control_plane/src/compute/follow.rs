//! Having the page server follow a compute.

use std::path::Path;
use std::time::{Duration, Instant};

use pageserver_client::STANDBY_NAME;

use super::run::START_TIMEOUT;
use super::{Compute, Durability, writer};
use crate::control::quote;
use crate::error::{Error, Result};
use crate::process;

/// How long the page server may take to follow a compute whose commits wait for it.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it is waited for that the page server connects, where nothing depends on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Compute {
    /// Tells the page server where this compute is, and waits until it streams from it. If that does
    /// not come about, it matters only where commits wait for the page server, for they would seem to
    /// hang.
    ///
    /// # Errors
    /// `Conflict` if the page server refuses to follow it.
    pub(super) fn have_it_followed(&self, socket_dir: &Path) -> Result<()> {
        let connstr = self.socket_connstr(socket_dir);
        let mut command = format!(
            "callmemaybe {} {}",
            self.timeline,
            quote(&format!("{connstr} application_name={}", STANDBY_NAME))
        );
        if let Some(writer) = self.writer_id() {
            command = format!("{command} {} {}", writer.instance, writer.generation);
        }
        // The first answer may be about a server that was at the same address a moment ago.
        if self.call(&command)?.is_some()
            && let Some(refusal) = self.call(&command)?
        {
            return Err(Error::Conflict(format!(
                "the page server refuses the WAL of compute {:?}: {refusal}; `zenith pg destroy {}` \
                 removes it",
                self.name, self.name
            )));
        }
        if self.durability == Durability::Local {
            return Ok(());
        }
        let mut compute = self.connect_patiently(socket_dir, START_TIMEOUT)?;
        let followed = format!(
            "select 1 from pg_stat_replication \
             where application_name = '{}' and state = 'streaming'",
            STANDBY_NAME
        );
        let deadline = Instant::now() + FOLLOW_TIMEOUT;
        while compute.rows(&followed)?.is_empty() {
            if Instant::now() >= deadline {
                return Err(Error::Timeout(format!(
                    "compute {:?} runs, but the page server does not follow it after {} s, so its \
                     commits wait; see {}",
                    self.name,
                    FOLLOW_TIMEOUT.as_secs(),
                    self.repository.server_log().display()
                )));
            }
            std::thread::sleep(process::POLL_INTERVAL);
        }
        Ok(())
    }

    /// Has the page server connect to this compute, and waits until it does. Gives why it refuses to
    /// take its WAL, if so; any other trouble may pass.
    fn call(&self, command: &str) -> Result<Option<String>> {
        let mut control = self.repository.control()?;
        control.rows(command).map_err(|error| match error {
            Error::PageServer { sqlstate, message } if sqlstate == writer::FENCED => {
                Error::Conflict(message)
            }
            other => other,
        })?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let writer = self.repository.writer(self.timeline)?;
            match writer.state.as_deref() {
                Some(writer::FENCED_STATE) => return Ok(writer.message.or(Some(String::new()))),
                Some("connecting") if Instant::now() < deadline => {
                    std::thread::sleep(process::POLL_INTERVAL);
                }
                _ => return Ok(None),
            }
        }
    }
}
