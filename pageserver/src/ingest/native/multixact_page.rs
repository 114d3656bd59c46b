//! Multitransactions: where each one's members begin, and the members.
//!
//! Source: PostgreSQL `backend/access/transam/multixact.c`.

use postgres_formats::slru::{MULTIXACT_MEMBER_GROUP_SIZE, MULTIXACT_OFFSETS_PER_PAGE};
use postgres_formats::wal::records::multixact::{MultiXactCreate, MultiXactMember};
use postgres_formats::{MultiXactId, PageImage, SlruKind};
use smallvec::SmallVec;

use crate::ingest::change::{Change, Changes};
use crate::key::PageKey;

/// Members in a group: one byte of flags each, then one transaction id each.
const MEMBERS_PER_GROUP: u32 = 4;

/// The two entries among the offsets that a new multitransaction sets: its own, and that of the
/// next one, which tells where its members end.
///
/// PostgreSQL sets the latter since 15.16, to the value that the next one's own record will have:
/// without it, a multitransaction whose successor's record a crash has eaten has no end. Older
/// servers overwrite or clear it at their start, so it does no harm to them.
fn offsets(create: &MultiXactCreate) -> [(MultiXactId, u32); 2] {
    // Number 0 is never the first member: as an offset, 0 means "not set".
    let end = create.end_member().max(1);
    [(create.multi, create.first_member), (create.multi.next(), end)]
}

/// The members with their numbers.
fn members(create: &MultiXactCreate) -> impl Iterator<Item = (u32, MultiXactMember)> {
    let numbers = (0u32..).map(|i| create.first_member.wrapping_add(i));
    numbers.zip(create.members.iter().copied())
}

/// A new version of each page on which the multitransaction's offset or one of its members stands.
pub(in crate::ingest) fn push_create(create: &MultiXactCreate, changes: &mut Changes) {
    let mut push = |kind, page, must_exist| {
        let key = PageKey::Slru { kind, page };
        changes.list.push(Change::NativePage { key, will_init: false, must_exist });
    };
    let kind = SlruKind::MultixactOffsets;
    let [own, next] = offsets(create).map(|(multi, _)| kind.page_of(multi.0));
    push(kind, own, false);
    if next != own {
        // An older server makes this page only when it needs it, and its record for that is yet to
        // come.
        push(kind, next, true);
    }
    let kind = SlruKind::MultixactMembers;
    let mut pages: SmallVec<[u32; 2]> = SmallVec::new();
    for (number, _) in members(create) {
        let page = kind.page_of(number);
        if pages.last() != Some(&page) {
            pages.push(page);
            push(kind, page, false);
        }
    }
}

/// Writes what belongs on page `number` of the kind's files; false if that is nothing.
pub(super) fn apply(
    create: &MultiXactCreate,
    kind: SlruKind,
    number: u32,
    page: &mut PageImage,
) -> bool {
    let mut applied = false;
    match kind {
        SlruKind::Clog | SlruKind::CommitTs => {}
        SlruKind::MultixactOffsets => {
            for (multi, offset) in offsets(create) {
                if kind.page_of(multi.0) == number {
                    let at = (multi.0 % MULTIXACT_OFFSETS_PER_PAGE * 4) as usize;
                    page[at..at + 4].copy_from_slice(&offset.to_le_bytes());
                    applied = true;
                }
            }
        }
        SlruKind::MultixactMembers => {
            for (member_number, member) in members(create) {
                if kind.page_of(member_number) == number {
                    write_member(member_number, member, page);
                    applied = true;
                }
            }
        }
    }
    applied
}

fn write_member(number: u32, member: MultiXactMember, page: &mut PageImage) {
    let on_page = number % SlruKind::MultixactMembers.entries_per_page();
    let group = on_page / MEMBERS_PER_GROUP * MULTIXACT_MEMBER_GROUP_SIZE;
    let index = on_page % MEMBERS_PER_GROUP;
    page[(group + index) as usize] = member.status;
    let at = (group + MEMBERS_PER_GROUP + index * 4) as usize;
    page[at..at + 4].copy_from_slice(&member.xid.0.to_le_bytes());
}
