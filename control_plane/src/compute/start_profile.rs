//! What every start of a compute reads, fetched in one go before it starts.
//!
//! The servers of a branch's computes note what they have had to wait for (`lazyfiles::start_profile`), in
//! a file of the branch's timeline. A new branch begins with what its nearest ancestor has learnt. It is
//! all about time: whatever goes wrong here, the server fetches what it needs.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use lazyfiles::hydrate::{Wanted, fetch_ahead};
use lazyfiles::start_profile;
use postgres_formats::TimelineId;

use super::Compute;
use crate::error::{Error, IoContext, Result};
use crate::repository::Repository;

/// Folder of the files within a repository; each is called like its timeline.
const FOLDER: &str = "profiles";
/// How long a page server is waited for. The server that is about to start will be more patient.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many ancestors are asked for what they have learnt.
const ANCESTORS_MAX: u32 = 64;

impl Compute {
    /// Where its server notes what it fetches.
    pub(super) fn start_profile(&self) -> PathBuf {
        self.repository.start_profile(self.timeline)
    }

    /// Fetches what starts on this branch have read. The compute does not run, and its lock is held.
    pub(super) fn fetch_what_starts_read(&self, pageserver: &str) {
        let _identity = self.repository.account().enter();
        // What is not fetched now will be by the server.
        let _ = self.learnt().and_then(|wanted| self.fetch_wanted(wanted, pageserver));
    }

    fn fetch_wanted(&self, wanted: Vec<Wanted>, pageserver: &str) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let layout = &self.layout;
        let mut pages =
            self.pages_from_outside(layout, pageserver.to_owned(), PATIENCE, || false)?;
        let (pgdata, presence) = (layout.pgdata(), layout.presence());
        fetch_ahead(self.stubs(&pgdata, &presence)?, wanted, &mut pages)
            .map(drop)
            .map_err(|error| Error::Conflict(error.to_string()))
    }

    fn learnt(&self) -> Result<Vec<Wanted>> {
        let path = self.start_profile();
        if !path.exists() {
            self.repository.inherit_start_profile(self.timeline)?;
        }
        Ok(start_profile::parse(&fs::read_to_string(&path).io("read", &path)?))
    }
}

impl Repository {
    fn start_profile(&self, timeline: TimelineId) -> PathBuf {
        self.dir().join(FOLDER).join(timeline.to_string())
    }

    /// Gives `timeline` a file, with what its nearest ancestor has learnt.
    fn inherit_start_profile(&self, timeline: TimelineId) -> Result<()> {
        let folder = self.dir().join(FOLDER);
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder).io("create", &folder)?;
        self.forget_start_profiles(timeline);
        let mut learnt = Vec::new();
        let mut control = self.control()?;
        let mut next = Some(timeline);
        for _ in 0..ANCESTORS_MAX {
            let Some(of) = next else { break };
            let row = control.row(&format!("timeline_show {of}"))?;
            next = row.optional_value("ancestor_timeline")?;
            let found = next.and_then(|ancestor| fs::read(self.start_profile(ancestor)).ok());
            if let Some(found) = found.filter(|found| !found.is_empty()) {
                learnt = found;
                break;
            }
        }
        // Not durable, since it can be learnt again; whole, since others read it.
        let own = self.start_profile(timeline);
        let unfinished = folder.join(format!(".{timeline}.{}", std::process::id()));
        fs::write(&unfinished, learnt).io("write", &unfinished)?;
        fs::rename(&unfinished, &own).io("rename", &unfinished)
    }

    /// Removes the files of timelines that are gone.
    fn forget_start_profiles(&self, keep: TimelineId) {
        for entry in fs::read_dir(self.dir().join(FOLDER)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let timeline = name.to_str().and_then(|name| name.parse::<TimelineId>().ok());
            if let Some(timeline) = timeline
                && timeline != keep
                && !self.dir().join("timelines").join(timeline.to_string()).exists()
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
