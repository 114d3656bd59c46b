//! Free space maps. PostgreSQL logs nothing of them, so that history has none, or an old one, of a table.
//! They are made anew while images are made: then every page of a table goes by, and its room is seen.
//!
//! A map is a hint. PostgreSQL looks at the page before it believes it, so that a wrong map costs time or space and
//! no more, with one exception: it must not name a page behind the table's end. Hence:
//!
//! - In an image, the map of a table (or toast table, materialized view, catalog) has the size that goes with the
//!   table's, and says what the table's pages say at that LSN, whatever history has of it.
//! - From then on it is a fork like any other: history has it where the image is the newest to know of it, and
//!   images of its pages in the WAL count, if they are later.
//! - A map without its table does not exist. It may be left where the drop was taken in before there was an image
//!   to bring the map.
//! - A page is given out without the slots for pages that the table has not at that LSN: a truncation may have been
//!   taken in before there was a map to cut. A page behind the map's end, too, is one of zeros: a compute may know
//!   of a longer one, from before an image.
//!
//! Other relations have pages with special space. Their maps, where there are any, are left as history has them,
//! and so are those of unlogged relations.

mod maps;

use std::collections::BTreeMap;

use postgres_formats::ForkNumber;

use crate::object::ObjectTag;

pub(crate) use maps::Maps;

/// The main fork, if `object` is the free space map of a relation.
pub(crate) fn table_of_map(object: ObjectTag) -> Option<ObjectTag> {
    match object {
        ObjectTag::Rel(rel) if rel.fork == ForkNumber::Fsm => {
            Some(ObjectTag::Rel(rel.locator().fork(ForkNumber::Main)))
        }
        _ => None,
    }
}

/// Removes the maps of relations that are not there.
pub(crate) fn remove_orphans(objects: &mut BTreeMap<ObjectTag, u32>) {
    let is_orphan = |object: &&ObjectTag| {
        table_of_map(**object).is_some_and(|table| !objects.contains_key(&table))
    };
    let orphans: Vec<ObjectTag> = objects.keys().filter(is_orphan).copied().collect();
    for orphan in orphans {
        objects.remove(&orphan);
    }
}
