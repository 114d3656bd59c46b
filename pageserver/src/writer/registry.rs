//! `Writers`: the roles of all timelines, each read when first asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable_files::FactError;
use parking_lot::Mutex;
use postgres_formats::TimelineId;

use super::fact::WriterFact;
use super::role::WriterRole;

/// The roles of all timelines.
pub struct Writers {
    timelines_dir: PathBuf,
    // LOCK ORDER: leaf. Held while a small file is read, once per timeline: two who ask at once must
    // get the same role.
    roles: Mutex<BTreeMap<TimelineId, Arc<WriterRole>>>,
}

impl Writers {
    /// Of the timelines whose folders are in `timelines_dir`.
    pub fn new(timelines_dir: &Path) -> Writers {
        Writers { timelines_dir: timelines_dir.to_owned(), roles: Mutex::default() }
    }

    /// The role of a timeline's writer. The timeline need not be loaded.
    ///
    /// # Errors
    /// See `FactError`; what is damaged is looked at again when asked for again.
    pub fn role(&self, timeline: TimelineId) -> Result<Arc<WriterRole>, FactError> {
        let mut roles = self.roles.lock();
        if let Some(role) = roles.get(&timeline) {
            return Ok(role.clone());
        }
        let dir = self.dir(timeline);
        let role = Arc::new(WriterRole::read(&dir)?);
        // Without its folder nothing is known: it may get that back, with a writer in it.
        if dir.exists() {
            roles.insert(timeline, role.clone());
        }
        Ok(role)
    }

    /// Lets go of a timeline that has been deleted.
    pub fn forget(&self, timeline: TimelineId) {
        self.roles.lock().remove(&timeline);
    }

    /// The facts of all timelines that have one, and what keeps others from being known.
    pub fn list(&self) -> io::Result<Vec<(TimelineId, Result<WriterFact, FactError>)>> {
        let mut facts = Vec::new();
        for entry in fs::read_dir(&self.timelines_dir)? {
            let Some(timeline) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            match self.role(timeline).map(|role| role.fact()) {
                Ok(None) => {}
                Ok(Some(fact)) => facts.push((timeline, Ok(fact))),
                Err(error) => facts.push((timeline, Err(error))),
            }
        }
        facts.sort_by_key(|(timeline, _)| *timeline);
        Ok(facts)
    }

    fn dir(&self, timeline: TimelineId) -> PathBuf {
        self.timelines_dir.join(timeline.to_string())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::super::fact::tests::fact;
    use super::*;

    #[test]
    fn roles_are_shared_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = [1, 2].map(|n| TimelineId::from_bytes([n; 16]));
        for id in [a, b] {
            fs::create_dir(dir.path().join(id.to_string())).unwrap();
        }
        let writers = Writers::new(dir.path());
        let role = writers.role(a).unwrap();
        role.set(fact(4, "x")).unwrap();
        assert_eq!(writers.role(a).unwrap().generation(), role.generation());
        let listed = writers.list().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].1.as_ref().unwrap(), &fact(4, "x"));

        // Of one whose folder is not there nothing is remembered.
        let moved = dir.path().join("elsewhere");
        fs::rename(dir.path().join(a.to_string()), &moved).unwrap();
        let again = Writers::new(dir.path());
        assert!(again.role(a).unwrap().fact().is_none());
        fs::rename(&moved, dir.path().join(a.to_string())).unwrap();
        assert!(again.role(a).unwrap().fact().is_some());

        // One that is damaged is told of, and does not hide the others.
        fs::write(dir.path().join(b.to_string()).join("writer.toml"), "?").unwrap();
        let again = Writers::new(dir.path());
        let listed = again.list().unwrap();
        assert!(listed[0].1.is_ok() && listed[1].1.is_err());
        assert!(again.role(b).is_err());
        fs::remove_file(dir.path().join(b.to_string()).join("writer.toml")).unwrap();
        assert!(again.role(b).unwrap().fact().is_none());
    }
}
