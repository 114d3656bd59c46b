//! What a running server has on its pages without a record, beyond what PostgreSQL's masks leave out.

use postgres_formats::wal::rmgr;
use postgres_formats::{BlockNumber, ForkNumber, Oid, PageImage, RelTag};
use walredo_pool::MaskKind;

use super::report::Permitted;

/// The lowest number that `initdb` does not give (`FirstNormalObjectId`, `access/transam.h`).
const FIRST_NORMAL_OID: Oid = Oid(16384);
/// `pd_lsn` and `pd_checksum` end here.
const BEHIND_CHECKSUM: usize = 10;
/// Where a page's contents begin (`MAXALIGN(SizeOfPageHeaderData)`).
const CONTENTS: usize = 24;
/// `lastUsedPages` of an SP-GiST index's first page, behind its magic number: eight places of a
/// block's number and the room in it (`SpGistMetaPageData`, `access/spgist_private.h`).
const SPGIST_ROOM: std::ops::Range<usize> = CONTENTS + 4..CONTENTS + 4 + 8 * 8;
/// What is in a sequence's only row, from its data on (`FormData_pg_sequence_data`,
/// `commands/sequence.h`): the last value, the values left of those that are logged, and whether the
/// last one was given out.
const SEQUENCE_ROW_BYTES: usize = 17;

/// Why two versions of a page may differ where no mask is laid, if there is a reason: `ours` is what
/// the records say, `theirs` what the server has.
pub(super) fn explain(
    rel: RelTag,
    block: BlockNumber,
    mask: MaskKind,
    ours: &PageImage,
    theirs: &PageImage,
) -> Option<Permitted> {
    match mask {
        _ if rel.fork == ForkNumber::Vm => {
            has_bits_of_copy(rel, ours, theirs).then_some(Permitted::VisibilityOfCopiedDatabase)
        }
        MaskKind::ResourceManager(rmgr::SPGIST) if block == BlockNumber(0) => {
            same_but(ours, theirs, SPGIST_ROOM).then_some(Permitted::SpgistRoom)
        }
        MaskKind::ResourceManager(rmgr::SEQ) => sequence(ours, theirs),
        _ => None,
    }
}

/// Whether a page of a visibility map has bits that we have not, and nothing else differs, in a database
/// that somebody has made: by a copy whose records leave the bits out.
pub(super) fn has_bits_of_copy(rel: RelTag, ours: &PageImage, theirs: &PageImage) -> bool {
    let fewer = ours.iter().zip(theirs.iter()).skip(CONTENTS).all(|(o, t)| o & !t == 0);
    rel.db >= FIRST_NORMAL_OID && fewer && same_but(ours, theirs, CONTENTS..8192)
}

/// Whether nothing differs but LSN, checksum and what is in `range`.
fn same_but(ours: &PageImage, theirs: &PageImage, range: std::ops::Range<usize>) -> bool {
    ours[BEHIND_CHECKSUM..range.start] == theirs[BEHIND_CHECKSUM..range.start]
        && ours[range.end..] == theirs[range.end..]
}

/// A record has the value up to which values may be given out, and none left of those; the server
/// has as many left as it has still to give out.
fn sequence(ours: &PageImage, theirs: &PageImage) -> Option<Permitted> {
    // The line pointer (`ItemIdData`, `storage/itemid.h`): the lowest 15 bits are the row's place.
    let pointer = u32::from_le_bytes(*ours[CONTENTS..].first_chunk()?);
    let row = (pointer & 0x7FFF) as usize;
    let header = usize::from(*ours.get(row + 22)?);
    let data = row + header;
    let number = |page: &PageImage, at: usize| {
        page.get(at..at + 8)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
    };
    let (our_last, their_last) = (number(ours, data)?, number(theirs, data)?);
    let (our_left, their_left) = (number(ours, data + 8)?, number(theirs, data + 8)?);
    let distance = i128::from(our_last) - i128::from(their_last);
    let explained = our_left == 0
        && their_left > 0
        && distance != 0
        && distance % i128::from(their_left) == 0
        && data + SEQUENCE_ROW_BYTES <= ours.len();
    // The row is frozen from the beginning (`fill_seq_fork_with_data`), so it has no hints.
    let range = data..data + SEQUENCE_ROW_BYTES;
    (explained && same_but(ours, theirs, range)).then_some(Permitted::SequenceValuesAhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_a_copy_leaves_out() {
        let map = |db| RelTag { spc: Oid(1663), db: Oid(db), rel: Oid(9), fork: ForkNumber::Vm };
        let mut theirs = PageImage::zeroed();
        theirs[24] = 0xF0;
        let mut ours = theirs.clone();
        ours[24] = 0x30;
        assert!(has_bits_of_copy(map(16384), &ours, &theirs));
        // One that `initdb` made is no copy, and a bit that only we have gives wrong answers.
        assert!(!has_bits_of_copy(map(5), &ours, &theirs));
        assert!(!has_bits_of_copy(map(16384), &theirs, &ours));
        ours[12] = 1;
        assert!(!has_bits_of_copy(map(16384), &ours, &theirs));
    }
}
