//! Compacting: a branch's history in few layers, with an image at its end.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use postgres_formats::{Lsn, TimelineId};
use serde::Serialize;

use crate::branch::{Branch, check_name};
use crate::checkpoint::as_text;
use crate::control::{Control, Row};
use crate::error::Result;
use crate::gc::CollectedLayer;
use crate::repository::Repository;

/// How often it is asked how far the page server is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What compacting has given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Compacted {
    /// The branch.
    pub branch: String,
    /// Its timeline.
    #[serde(serialize_with = "as_text")]
    pub timeline: TimelineId,
    /// Up to where its history is in layers.
    #[serde(serialize_with = "as_text")]
    pub lsn: Lsn,
    /// The layers that were made.
    pub made: Vec<CollectedLayer>,
    /// Those in whose place they are.
    pub replaced: Vec<CollectedLayer>,
    /// How many layers of the branch's own there are now.
    pub layers: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What the page server is doing about the layers of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    /// What: `merging`, `imaging`, `detaching`.
    pub kind: String,
    /// Up to or at which LSN.
    pub lsn: Lsn,
    /// How much of it is done, in entries or pages.
    pub done: u64,
    /// How much there is to be done.
    pub total: u64,
}

impl Repository {
    /// Puts the history of the branch with this name, by default of the default branch, into few layers, with
    /// an image at its end. `progress` is told from time to time how far that is.
    ///
    /// # Errors
    /// `PageServer` among others; what is done by then is done.
    pub fn compact(
        &self,
        name: Option<&str>,
        progress: &mut dyn FnMut(&Work),
    ) -> Result<Compacted> {
        let name = check_name(name.unwrap_or(&self.config().default_branch))?;
        self.compact_branch(&self.branch(&name)?, progress)
    }

    /// The same of a branch that was looked up.
    ///
    /// # Errors
    /// As above.
    pub fn compact_branch(
        &self,
        branch: &Branch,
        progress: &mut dyn FnMut(&Work),
    ) -> Result<Compacted> {
        self.catch_up(branch.timeline)?;
        let command = format!("compact {}", branch.timeline);
        let rows = self.rows_with_progress(&command, branch.timeline, progress)?;
        compacted(branch, &rows)
    }

    /// Runs a command that may take long, and tells meanwhile what the page server does about the layers of
    /// `timeline`.
    pub(crate) fn rows_with_progress(
        &self,
        command: &str,
        timeline: TimelineId,
        progress: &mut dyn FnMut(&Work),
    ) -> Result<Vec<Row>> {
        let mut control = Control::connect_patiently(&self.server_address()?.unix)?;
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                // The other end waits for it, or has panicked.
                let _ = sender.send(control.rows(command));
            });
            loop {
                match receiver.recv_timeout(ASK_EVERY) {
                    Ok(done) => return done,
                    // The thread has panicked, and so does the scope.
                    Err(RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
                    // What is wrong there is told by the other connection.
                    Err(RecvTimeoutError::Timeout) => {
                        self.works(timeline).unwrap_or_default().iter().for_each(&mut *progress);
                    }
                }
            }
        })
    }

    /// What the page server is doing about the layers of a timeline.
    fn works(&self, timeline: TimelineId) -> Result<Vec<Work>> {
        let rows = self.control()?.rows("work_list")?;
        let timeline = timeline.to_string();
        let own = rows.iter().filter(|row| row.optional("timeline") == Some(&timeline));
        own.map(|row| {
            Ok(Work {
                kind: row.value("kind")?,
                lsn: row.value("lsn")?,
                done: row.value("done")?,
                total: row.value("total")?,
            })
        })
        .collect()
    }
}

fn compacted(branch: &Branch, rows: &[Row]) -> Result<Compacted> {
    let mut done = Compacted {
        branch: branch.name.to_string(),
        timeline: branch.timeline,
        lsn: Lsn::INVALID,
        made: Vec::new(),
        replaced: Vec::new(),
        layers: 0,
        bytes: 0,
    };
    for row in rows {
        match row.optional("layer") {
            Some(name) => {
                let layer = CollectedLayer { name: name.to_owned(), bytes: row.value("bytes")? };
                match row.value("replaced")? {
                    true => done.replaced.push(layer),
                    false => done.made.push(layer),
                }
            }
            None => {
                (done.lsn, done.bytes) = (row.value("lsn")?, row.value("bytes")?);
                done.layers = row.value("layers")?;
            }
        }
    }
    Ok(done)
}
