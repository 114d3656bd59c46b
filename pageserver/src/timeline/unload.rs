//! Whether a timeline can leave memory.

use std::sync::atomic::Ordering;

use super::Timeline;

impl Timeline {
    /// Makes durable what was received, and tells whether loading the timeline again gives what is here
    /// now. Not so where more is known than the files say: that a sync failed, that WAL on disk is being
    /// mended, why none is taken in. To be asked when nobody else uses it.
    pub(crate) fn can_be_unloaded(&self) -> bool {
        {
            let Some(writer) = self.writer.try_lock() else { return false };
            if writer.sync_failed || writer.on_disk.is_some() || writer.probe.is_some() {
                return false;
            }
        }
        if self.stop().is_some() {
            return false;
        }
        let positions = self.positions();
        if positions.durable < positions.last_record
            && let Err(error) = self.sync_wal()
        {
            slog::error!(self.log, "WAL not synced, the timeline stays in memory";
                "error" => %error);
            return false;
        }
        // Otherwise WAL that had been durable once would be missed.
        self.claimed.load(Ordering::Relaxed) <= self.positions().durable.as_u64()
    }
}
