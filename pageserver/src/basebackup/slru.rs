//! SLRUs in a base backup: whole, or as stubs of which only those pages are there that a start reads.

use std::collections::{BTreeMap, BTreeSet};

use postgres_formats::BlockNumber;
use postgres_formats::checkpoint::CheckPoint;
use postgres_formats::slru::SlruKind;

use crate::key::PageKey;
use crate::object::{ObjectPage, ObjectTag};

/// Which files a base backup has whole, and which it only lists, to be made as stubs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The segment files of SLRUs have all their pages, relations are listed.
    WholeSlrus,
    /// SLRUs are listed, too. A long history has thousands of pages of commit log, each made from
    /// thousands of records, and a compute reads few of them.
    Stubs,
    /// Everything is there, so that a server can be started that knows nothing of us.
    Whole,
}

/// The pages that every start of PostgreSQL reads: `TrimCLOG` and `TrimMultiXact` clear what lies
/// behind the next id on its page, `SetOffsetVacuumLimit` looks for the oldest multitransaction.
pub(super) fn pages_of_start(
    checkpoint: &CheckPoint,
    objects: &BTreeMap<ObjectTag, u32>,
) -> BTreeSet<ObjectPage> {
    let mut pages = BTreeSet::new();
    for kind in SlruKind::ALL {
        let next_xid = checkpoint.next_xid.xid().0;
        let entries = match kind {
            SlruKind::MultixactOffsets => [checkpoint.next_multi.0, checkpoint.oldest_multi.0],
            SlruKind::MultixactMembers => [checkpoint.next_multi_offset; 2],
            // All others are numbered by transactions.
            _ => [next_xid; 2],
        };
        for entry in entries {
            let page = ObjectPage::from(PageKey::Slru { kind, page: kind.page_of(entry) });
            if objects.get(&page.object).is_some_and(|size| page.block < BlockNumber(*size)) {
                pages.insert(page);
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use postgres_formats::xid::{FullTransactionId, MultiXactId};

    use super::*;

    #[test]
    fn pages_around_the_next_and_the_oldest_ids() {
        let slru = |kind, segment| ObjectTag::Slru { kind, segment };
        let objects = BTreeMap::from([
            (slru(SlruKind::Clog, 1), 3),
            (slru(SlruKind::MultixactOffsets, 0), 32),
            (slru(SlruKind::MultixactOffsets, 1), 1),
            (slru(SlruKind::MultixactMembers, 0), 1),
        ]);
        let mut checkpoint = CheckPoint::decode(&[0; 88]).expect("zeros are a checkpoint");
        checkpoint.next_xid = FullTransactionId((7 << 32) + (32 + 2) * 32768 + 1);
        checkpoint.next_multi = MultiXactId(32 * 2048 + 1);
        checkpoint.oldest_multi = MultiXactId(5 * 2048);
        let expected = BTreeSet::from(
            [
                (slru(SlruKind::Clog, 1), 2),
                (slru(SlruKind::MultixactOffsets, 0), 5),
                (slru(SlruKind::MultixactOffsets, 1), 0),
                (slru(SlruKind::MultixactMembers, 0), 0),
            ]
            .map(|(object, block)| ObjectPage { object, block: BlockNumber(block) }),
        );
        assert_eq!(pages_of_start(&checkpoint, &objects), expected);
        // A page that is yet to begin.
        checkpoint.next_xid = FullTransactionId((32 + 3) * 32768);
        assert_eq!(pages_of_start(&checkpoint, &objects).len(), 3);
    }
}
