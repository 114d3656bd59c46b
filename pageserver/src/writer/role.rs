//! `WriterRole`: the present writer of one timeline, in memory and on disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use durable_files::FactError;
use pageserver_client::Generation;
use parking_lot::Mutex;

use super::fact::WriterFact;

/// The present writer of one timeline.
///
/// Many look at it; only whoever holds the lock of `Followers` changes it.
pub struct WriterRole {
    timeline_dir: PathBuf,
    /// The generation of the fact, for those who only want to know whether they are out of date.
    generation: AtomicU64,
    // LOCK ORDER: leaf, held for a moment only, never while the file is written.
    fact: Mutex<Option<WriterFact>>,
}

impl WriterRole {
    /// Reads what the timeline's folder says.
    ///
    /// # Errors
    /// See `FactError`.
    pub fn read(timeline_dir: &Path) -> Result<WriterRole, FactError> {
        // Nobody else writes it, and nobody could before it was read.
        WriterFact::remove_unfinished(timeline_dir)?;
        let fact = WriterFact::read(timeline_dir)?;
        let generation = fact.as_ref().map_or(Generation::NONE, |fact| fact.generation);
        Ok(WriterRole {
            timeline_dir: timeline_dir.to_owned(),
            generation: AtomicU64::new(generation.0),
            fact: Mutex::new(fact),
        })
    }

    /// The writer, or the last one; `None` if there never was any.
    pub fn fact(&self) -> Option<WriterFact> {
        self.fact.lock().clone()
    }

    /// How often the role has been given away.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// What a compute is told that got the role as `generation`, if it does not have it any more.
    pub fn fenced(&self, generation: Generation) -> Option<String> {
        if generation >= self.generation() {
            return None;
        }
        self.fact.lock().as_ref().map(WriterFact::fenced)
    }

    /// Puts another fact in place, durably. If that fails, the one before stays.
    ///
    /// # Errors
    /// See `FactError`.
    pub(crate) fn set(&self, fact: WriterFact) -> Result<(), FactError> {
        fact.write(&self.timeline_dir)?;
        let generation = fact.generation.0;
        *self.fact.lock() = Some(fact);
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::super::fact::tests::fact;
    use super::*;

    #[test]
    fn only_earlier_generations_are_fenced() {
        let dir = tempfile::tempdir().unwrap();
        let role = WriterRole::read(dir.path()).unwrap();
        assert_eq!((role.fact(), role.generation()), (None, Generation::NONE));
        assert_eq!(role.fenced(Generation::NONE), None);
        role.set(fact(1, "a")).unwrap();
        assert_eq!(role.fenced(Generation(1)), None);
        role.set(fact(2, "b")).unwrap();
        assert!(role.fenced(Generation(1)).unwrap().contains("generation 2"));
        assert_eq!(role.fenced(Generation(2)), None);
        let again = WriterRole::read(dir.path()).unwrap();
        assert_eq!(again.fact(), Some(fact(2, "b")));
        assert!(again.fenced(Generation(1)).is_some());
    }

    #[test]
    fn what_cannot_be_remembered_is_not_so() {
        let dir = tempfile::tempdir().unwrap();
        let role = WriterRole::read(dir.path()).unwrap();
        role.set(fact(1, "a")).unwrap();
        std::fs::create_dir(dir.path().join("writer.toml.new")).unwrap();
        role.set(fact(2, "b")).unwrap_err();
        assert_eq!(role.fact(), Some(fact(1, "a")));
        assert_eq!(role.fenced(Generation(1)), None);
    }
}
