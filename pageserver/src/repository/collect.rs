//! Removing the layers of a timeline that nobody needs.

use pageserver_client::RetentionSpec;
use postgres_formats::{Lsn, TimelineId};

use super::holds::{Hold, needed_by};
use super::{Repository, RepositoryError};
use crate::timeline::{Collected, LayerFile, Needed, Span, Timeline};

/// How much of a timeline's history can be asked for, counted from its end. Without either, all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Retention {
    /// The WAL of so many bytes.
    pub window_bytes: Option<u64>,
    /// What happened in so many seconds.
    pub window_seconds: Option<u64>,
}

impl Retention {
    /// What is meant; `None`: as much as of all.
    pub fn of(spec: RetentionSpec) -> Option<Retention> {
        match spec {
            RetentionSpec::Default => None,
            RetentionSpec::Unlimited => Some(Retention::default()),
            RetentionSpec::Window { bytes, seconds } => {
                Some(Retention { window_bytes: bytes, window_seconds: seconds })
            }
        }
    }

    /// In words.
    pub fn spec(retention: Option<Retention>) -> RetentionSpec {
        match retention {
            None => RetentionSpec::Default,
            Some(Retention { window_bytes: None, window_seconds: None }) => {
                RetentionSpec::Unlimited
            }
            Some(Retention { window_bytes: bytes, window_seconds: seconds }) => {
                RetentionSpec::Window { bytes, seconds }
            }
        }
    }
}

/// What a collection would remove, and who keeps it from removing more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outlook {
    /// What would go.
    pub collected: Collected,
    /// Who needs history, and how many bytes of layers that the timeline's own retention does not.
    pub held: Vec<(Hold, u64)>,
    /// How many bytes these are together.
    pub held_bytes: u64,
    /// How many bytes of layers there are.
    pub bytes: u64,
}

impl Outlook {
    /// Of a timeline with these layers, of which those that were `collected` go.
    pub(super) fn of(files: &[LayerFile], mut held: Vec<Hold>, collected: Collected) -> Outlook {
        held.sort();
        held.dedup();
        let since = Span::new(files, Needed::since(collected.horizon));
        let has_since = collected.horizon < Lsn::MAX;
        let is_beyond = |file: &&LayerFile| !(has_since && since.takes(file));
        let beyond: Vec<&LayerFile> = files.iter().filter(is_beyond).collect();
        let bytes_of = |hold: &Hold| {
            let span = Span::new(files, hold.needed);
            let held = beyond.iter().filter(|file| span.takes(file));
            held.map(|file| file.bytes).sum::<u64>()
        };
        let held = held.into_iter().map(|hold| (bytes_of(&hold), hold));
        let held = held.map(|(bytes, hold)| (hold, bytes)).collect();
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let beyond: u64 = beyond.iter().map(|file| file.bytes).sum();
        let held_bytes = beyond.saturating_sub(collected.bytes());
        Outlook { collected, held, held_bytes, bytes }
    }
}

impl Repository {
    /// Removes the layers of a timeline that nobody needs.
    ///
    /// # Errors
    /// `ComputesUnknown` if computes may have no leases, `MayHold` if something cannot be read that may need
    /// them; see `RepositoryError`.
    pub fn collect(&self, id: TimelineId) -> Result<Collected, RepositoryError> {
        let timeline = self.timeline(id)?;
        loop {
            let removal =
                self.with_holds(&timeline, |holds| timeline.collect(&needed_by(holds)))??;
            match removal {
                Some(removal) => return Ok(removal.finish()),
                // Branches can be made while somebody else is about the layers.
                None => timeline.wait_for_layers(),
            }
        }
    }

    /// What `collect` would do now.
    ///
    /// # Errors
    /// As those of `collect`.
    pub fn outlook(&self, id: TimelineId) -> Result<Outlook, RepositoryError> {
        let timeline = self.timeline(id)?;
        let holds = self.with_holds(&timeline, <[Hold]>::to_vec)?;
        let collected = timeline.unneeded(&needed_by(&holds));
        Ok(Outlook::of(&timeline.layer_files(), holds, collected))
    }

    /// Gives all that is needed of a timeline to `take`, while nobody can come to need more of what is not.
    fn with_holds<T>(
        &self,
        timeline: &Timeline,
        take: impl FnOnce(&[Hold]) -> T,
    ) -> Result<T, RepositoryError> {
        if !self.leases.all_known() {
            return Err(RepositoryError::ComputesUnknown);
        }
        // What stands on it can be told only then.
        self.know_all()?;
        loop {
            let windows = self.windows_on(timeline)?;
            // Nobody shall make a branch, a tag or a lease where something is just being removed.
            let changing = self.changing.lock();
            self.look_now(&changing);
            if let Some(holds) = self.holds_on(timeline, windows, &changing)? {
                return Ok(take(&holds));
            }
        }
    }
}
