//! Free space maps: hints, that neither WAL nor the other side has anything to say about. What they must not
//! do is to send PostgreSQL to a page that the table has not.

use std::collections::BTreeMap;

use pageserver_client::{PageClient, PageClientError};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, PageImage, RelTag, free_space_map};

use super::Watcher;
use super::directory::DataDirectory;
use super::pages::{self, Chunk};
use super::report::{Difference, Permitted, Verification};
use super::undecided::{Counter, Subject};
use crate::error::Result;
use crate::page::page_error;

/// Looks at every page of every map among the forks that the page server has, each with its size in blocks.
pub(super) fn check(
    client: &mut PageClient,
    lsn: Lsn,
    forks: &BTreeMap<RelTag, u32>,
    theirs: &DataDirectory,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    let maps = forks.iter().filter(|(rel, _)| rel.fork == ForkNumber::Fsm);
    for (rel, size) in maps {
        watcher.check()?;
        let main = rel.locator().fork(ForkNumber::Main);
        let Some(pages) = forks.get(&main) else {
            // Otherwise it has been told that the relation is missing.
            if !theirs.relations.contains_key(&main) {
                differs(*rel, None, "there is no relation that it is of".to_owned(), report);
            }
            continue;
        };
        // That a relation is too short has been told, and is no fault of its map.
        let pages = theirs.relations.get(&main).map_or(*pages, |theirs| *pages.max(theirs));
        for chunk in pages::chunks(*rel, *size) {
            check_chunk(client, lsn, chunk, pages, report)?;
        }
    }
    Ok(())
}

fn check_chunk(
    client: &mut PageClient,
    lsn: Lsn,
    chunk: Chunk,
    pages: u32,
    report: &mut Verification,
) -> Result<()> {
    let Chunk { rel, first, count } = chunk;
    let many = u16::try_from(count).unwrap_or(u16::MAX);
    let bytes = match client.get_pages(rel, BlockNumber(first), many, lsn) {
        Err(PageClientError::Refused { message, .. }) => {
            let detail = format!("the page server cannot give it: {message}");
            differs(rel, Some(BlockNumber(first)), detail, report);
            return Ok(());
        }
        bytes => bytes.map_err(page_error)?,
    };
    for (block, bytes) in (first..).map(BlockNumber).zip(bytes.chunks_exact(BLCKSZ)) {
        let mut map = PageImage::zeroed();
        map.copy_from_slice(bytes);
        if free_space_map::names_behind(pages, block, &map) {
            let detail = format!("room in pages that the relation of {pages} pages has not");
            differs(rel, Some(block), detail, report);
        } else {
            report.permit(Permitted::FreeSpaceMap, 1);
        }
    }
    Ok(())
}

fn differs(rel: RelTag, block: Option<BlockNumber>, detail: String, report: &mut Verification) {
    let kind = if block.is_some() { "page" } else { "relation" };
    let difference = Difference { block, ..Difference::of_relation(kind, rel, detail) };
    report.differs(Counter::Pages, Subject::Relation(rel.locator()), difference);
}
