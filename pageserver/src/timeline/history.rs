//! `History`: a timeline's own history as a row of stretches, the newest of which still grows.

use std::sync::Arc;

use super::Timeline;
use crate::index::WalIndex;
use crate::layer::image::LayerError;
use crate::stretch::Stretch;

/// The stretches of a timeline's own history.
#[derive(Default)]
pub(super) struct History {
    /// The one that grows.
    pub open: WalIndex,
    /// Those before, newest first.
    older: Older,
}

/// Stretches that do not change any more, newest first.
type Older = Arc<[Arc<dyn Stretch>]>;

impl Timeline {
    /// What the newest stretch says that knows anything of what is asked.
    pub(super) fn newest<T>(
        &self,
        mut ask: impl FnMut(&dyn Stretch) -> Result<Option<T>, LayerError>,
    ) -> Result<Option<T>, LayerError> {
        let older = {
            let history = self.history.read();
            if let Some(found) = ask(&history.open)? {
                return Ok(Some(found));
            }
            // Under the same lock: what leaves the open stretch is in an older one at that moment.
            history.older.clone()
        };
        for stretch in older.iter() {
            if let Some(found) = ask(&**stretch)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What each stretch says, the oldest first.
    pub(super) fn oldest_first<T>(
        &self,
        ask: impl Fn(&dyn Stretch) -> Result<T, LayerError>,
    ) -> Result<Vec<T>, LayerError> {
        let (newest, older) = {
            let history = self.history.read();
            (ask(&history.open)?, history.older.clone())
        };
        let mut answers = Vec::with_capacity(older.len() + 1);
        for stretch in older.iter().rev() {
            answers.push(ask(&**stretch)?);
        }
        answers.push(newest);
        Ok(answers)
    }
}
