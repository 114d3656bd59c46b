//! `SizeHistory`: how the size of an object changed.

use postgres_formats::{BlockNumber, Lsn};

/// The sizes an object had, in ascending order of LSN.
///
/// Besides every change the history keeps the cuts apart, the moments at which the object became
/// smaller, was dropped, or was made anew: only they make older versions of a block invalid, and
/// they are rare where extensions are many.
#[derive(Default, Debug)]
pub struct SizeHistory {
    changes: Vec<(Lsn, Option<u32>)>,
    cuts: Vec<(Lsn, u32)>,
}

impl SizeHistory {
    /// From `lsn` on the object has `size` pages; `None`: it is gone. `cut`: blocks from the new
    /// size on that were there before are no more.
    pub fn push(&mut self, lsn: Lsn, size: Option<u32>, cut: bool) {
        if cut {
            self.cuts.push((lsn, size.unwrap_or(0)));
        }
        match self.changes.last_mut() {
            // One record may change a size more than once; the last word counts.
            Some(last) if last.0 == lsn => last.1 = size,
            _ => self.changes.push((lsn, size)),
        }
    }

    /// Every change.
    pub fn changes(&self) -> &[(Lsn, Option<u32>)] {
        &self.changes
    }

    /// For each moment at which there was a cut, the lowest block that was cut off.
    pub fn cuts(&self) -> impl Iterator<Item = (Lsn, u32)> + '_ {
        self.cuts.chunk_by(|a, b| a.0 == b.0).filter_map(|cuts| {
            let lowest = cuts.iter().map(|(_, size)| *size).min()?;
            Some((cuts.first()?.0, lowest))
        })
    }

    /// The last change at or before `at`.
    pub fn at(&self, at: Lsn) -> Option<(Lsn, Option<u32>)> {
        let behind = self.changes.partition_point(|(lsn, _)| *lsn <= at);
        self.changes.get(behind.checked_sub(1)?).copied()
    }

    /// The last moment at or before `at` at which `block` was cut off.
    pub fn last_cut(&self, block: BlockNumber, at: Lsn) -> Option<Lsn> {
        let behind = self.cuts.partition_point(|(lsn, _)| *lsn <= at);
        let cuts = self.cuts.get(..behind)?;
        cuts.iter().rev().find(|(_, size)| *size <= block.0).map(|(lsn, _)| *lsn)
    }
}
