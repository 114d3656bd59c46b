//! Removing WAL that layers have taken the place of, unless it is to be kept (`[wal] keep`).
//!
//! Who reads a timeline's own WAL, and why none of it misses what goes here:
//!
//! - indexing, when the timeline is loaded or looked at again: begins at `Layered::end` of the manifest or later;
//! - records of versions, and states between two that are kept: those of the open stretch and of closed ones, all
//!   behind that end. Whoever found one in a stretch that became a layer meanwhile asks again, and finds the layer;
//! - writing a stretch as a layer: under the lock `layered`, as the removal is;
//! - reading back after a failed sync: from what is durable, and what is in layers is;
//! - comparing the joint with a server: the last MiB received, within one segment, which is kept;
//! - healing, cutting off the end: from the last record on;
//! - branches on this timeline: ask it, not its WAL;
//! - `pageserver materialize` and `pageserver wal`: begin with what there is, and say so. Who wants the whole history
//!   checked from its beginning keeps all WAL.

use postgres_formats::Lsn;

use super::Timeline;
use super::manifest::Layered;

impl Timeline {
    /// Removes WAL that is in layers according to the manifest on disk, which `layered` is. What cannot be
    /// removed is in nobody's way, and is tried again with the next layer.
    pub(super) fn remove_layered_wal(&self, layered: &Layered) {
        let options = &self.layers.options;
        let Some(keep) = options.keep_wal_bytes else { return };
        let keep = keep.max(options.keep_wal_bytes_min);
        let behind = layered.end.as_u64().saturating_sub(keep);
        match self.wal.remove_before(Lsn::new(behind)) {
            Ok(0) => {}
            Ok(count) => {
                slog::info!(self.log, "WAL that is in layers was removed"; "segments" => count);
            }
            Err(error) => {
                slog::warn!(self.log, "WAL that is in layers cannot be removed"; "error" => %error);
            }
        }
    }
}
