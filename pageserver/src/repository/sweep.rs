//! `sweep`: collects the layers of one timeline after the other, those of which something goes.

use std::time::{Duration, Instant};

use postgres_formats::TimelineId;

use super::{Holder, Outlook, Repository, RepositoryError, Retention};
use crate::error_text::with_causes;

/// Of those who hold history back, so many are named.
const NAMED_MAX: usize = 5;

/// What a sweep over all timelines has done and found.
#[derive(Clone, Default, Debug)]
pub struct Sweep {
    /// Layers that were removed.
    pub layers: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of layers that nobody needs, and that are there still.
    pub left_bytes: u64,
    /// Bytes of layers that are there only because somebody needs what the retention of their branch does not.
    pub held_bytes: u64,
    /// Who that is, those first who hold most: whose history, who, and how many bytes each.
    pub held: Vec<(TimelineId, Holder, u64)>,
    /// What went wrong last.
    pub problem: Option<String>,
}

impl Repository {
    /// Collects the layers of all timelines, kept ones as well, one at a time, of which something goes. `pause` is
    /// called before each and told how long the last one took; with `false` the sweep ends.
    ///
    /// # Errors
    /// `ComputesUnknown`, if computes may have no leases; see `RepositoryError`. What goes wrong with one
    /// timeline is told in the result.
    pub fn sweep(&self, pause: &mut dyn FnMut(Duration) -> bool) -> Result<Sweep, RepositoryError> {
        if !self.leases().all_known() {
            return Err(RepositoryError::ComputesUnknown);
        }
        self.know_all()?;
        {
            let _changing = self.changing.lock();
            self.leases().drop_over()?;
        }
        let (mut sweep, mut took) = (Sweep::default(), Duration::ZERO);
        let tags = self.tags()?.0;
        let ids = self.collectable();
        self.forget_glances(&ids);
        for id in ids {
            let Some(outlook) = self.outlook_at_a_glance(id, &tags) else { continue };
            if !outlook.collected.layers.is_empty() {
                if !pause(took) {
                    return Ok(sweep);
                }
                let began = Instant::now();
                // It may have become more meanwhile, or less.
                match self.collect(id) {
                    Ok(collected) => {
                        sweep.layers += collected.layers.len();
                        sweep.bytes += collected.bytes();
                    }
                    // It has just been deleted.
                    Err(RepositoryError::NoSuchTimeline(_)) => continue,
                    Err(error) => {
                        sweep.left_bytes += outlook.collected.bytes();
                        sweep.problem = Some(with_causes(&error));
                    }
                }
                took = began.elapsed();
            }
            sweep.note_held(id, &outlook);
        }
        sweep.held.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
        sweep.held.truncate(NAMED_MAX);
        Ok(sweep)
    }

    /// The timelines that may have what nobody needs: not those of which all is kept anyway.
    fn collectable(&self) -> Vec<TimelineId> {
        let registry = self.registry.read();
        let default = self.layers.options.retention;
        let named = registry
            .branches()
            .filter(|branch| branch.retention.unwrap_or(default) != Retention::default());
        let kept = registry.kept().map(|kept| kept.timeline);
        let mut ids: Vec<TimelineId> = named.map(|branch| branch.timeline).chain(kept).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl Sweep {
    fn note_held(&mut self, id: TimelineId, outlook: &Outlook) {
        for (hold, bytes) in outlook.held.iter().filter(|(_, bytes)| *bytes > 0) {
            self.held.push((id, hold.holder.clone(), *bytes));
        }
        self.held_bytes += outlook.held_bytes;
    }
}
