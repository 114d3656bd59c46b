//! The checksum in every page that the page server gives out.

use std::collections::BTreeMap;

use pageserver_client::{PageClient, PageClientError};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, PageImage, RelTag, page_checksum};

use super::super::report::{Difference, Verification};
use super::super::{VerifyStep, Watcher, pages};
use crate::error::Result;
use crate::page::page_error;

/// Asks for all pages of the forks, each with its size in blocks, and computes their checksums.
pub(in super::super) fn check(
    client: &mut PageClient,
    lsn: Lsn,
    forks: &BTreeMap<RelTag, u32>,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    report.deep_counts().checksums.enabled = true;
    let total = forks.values().map(|blocks| u64::from(*blocks)).sum();
    let all = forks.iter().flat_map(|(rel, blocks)| pages::chunks(*rel, *blocks));
    for pages::Chunk { rel, first, count } in all {
        if let Err(message) = check_chunk(client, lsn, rel, first, count, report)? {
            if count == 1 {
                differs(rel, first, &message, report);
            }
            for block in (first..first + count).filter(|_| count > 1) {
                if let Err(message) = check_chunk(client, lsn, rel, block, 1, report)? {
                    differs(rel, block, &message, report);
                }
            }
        }
        let done = report.deep_counts().checksums.pages;
        watcher.tell(VerifyStep::Checksums { done, total })?;
    }
    Ok(())
}

/// The inner error is what the page server says of pages that it cannot give.
fn check_chunk(
    client: &mut PageClient,
    lsn: Lsn,
    rel: RelTag,
    first: u32,
    count: u32,
    report: &mut Verification,
) -> Result<Result<(), String>> {
    let many = u16::try_from(count).unwrap_or(u16::MAX);
    let bytes = match client.get_pages(rel, BlockNumber(first), many, lsn) {
        Ok(bytes) => bytes,
        Err(PageClientError::Refused { message, .. }) => return Ok(Err(message)),
        Err(error) => return Err(page_error(error)),
    };
    for (block, bytes) in (first..).zip(bytes.chunks_exact(BLCKSZ)) {
        let mut page = PageImage::zeroed();
        page.copy_from_slice(bytes);
        // What looks new has to be zeros as a whole.
        match page_checksum::verify(&page, BlockNumber(block)) {
            Ok(()) => {
                let counts = &mut report.deep_counts().checksums;
                counts.pages += 1;
                counts.new_pages += u64::from(page.is_new());
            }
            Err(error) => differs(rel, block, &error.to_string(), report),
        }
    }
    Ok(Ok(()))
}

fn differs(rel: RelTag, block: u32, detail: &str, report: &mut Verification) {
    let counts = &mut report.deep_counts().checksums;
    counts.pages += 1;
    counts.different += 1;
    let mut difference = Difference::of_relation("checksum", rel, detail.to_owned());
    difference.block = Some(BlockNumber(block));
    report.describe(difference);
}
