//! `gc T [dry]`.

use postgres_formats::{Lsn, TimelineId};

use super::PageService;
use super::error::CommandError;
use super::table::{Rows, text};
use crate::repository::{Hold, Outlook};
use crate::timeline::LayerFile;

/// Collects, or only says what that would do: the layers that go, who needs older ones than the timeline's own
/// retention, and where the history begins that is kept.
pub(super) fn rows(service: &PageService, id: TimelineId, dry: bool) -> Result<Rows, CommandError> {
    let Outlook { collected, held, bytes, .. } = service.repository.outlook(id)?;
    let collected = match dry {
        true => collected,
        false => service.repository.collect(id)?,
    };
    let left = bytes.saturating_sub(collected.bytes());
    let layer =
        |layer: &LayerFile| vec![None, text(&layer.name), text(layer.bytes), None, None, None];
    let hold = |(Hold { needed, holder }, bytes): &(Hold, u64)| {
        let to = Some(needed.to).filter(|to| *to < Lsn::MAX).and_then(text);
        vec![text(needed.from), None, text(bytes), text(holder), to, None]
    };
    let oldest = service.repository.timeline(id)?.oldest_lsn();
    let horizon = match collected.layers.is_empty() {
        true => oldest,
        false => collected.horizon.max(oldest),
    };
    let horizon = Some(horizon).filter(|horizon| *horizon < Lsn::MAX).and_then(text);
    let last = vec![horizon, None, text(collected.bytes()), None, None, text(left)];
    let rows = collected.layers.iter().map(layer).chain(held.iter().map(hold)).chain([last]);
    Ok(rows.collect())
}
