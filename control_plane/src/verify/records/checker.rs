//! Asks for the pages, many at once, and compares them with their images.
//!
//! The page server makes a version of a page from the one before, if that is in its cache. So no two
//! versions of a page are under way at once, and of each page the next is asked for as soon as the
//! one before has come.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use pageserver_client::protocol::{RequestKind, Response, ResponseBody};
use pageserver_client::{ErrorCode, PageClient, PageClientError};
use postgres_formats::wal::{BlockImage, BlockRef, DecodedRecord, WalRecord, rmgr};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, PageImage, RelTag};
use walredo_pool::MaskKind;

use super::report::RecordsVerification;
use super::visibility::ClearedEarly;
use crate::error::{Error, Result};
use crate::page::page_error;
use crate::verify::masked::{Masked, Pair, Sides};
use crate::verify::masks::{MaskedPair, Masks, differing_bytes};
use crate::verify::report::{Difference, Permitted};
use crate::verify::unlogged;

/// Requests sent ahead.
const WINDOW: usize = 192;
/// Pairs of pages being masked.
const MASKS_AHEAD: usize = 64;
/// Bytes of images that wait, their pages being asked for or not yet.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// `pd_checksum` ends here; before it there is only the page's LSN.
const BEHIND_CHECKSUM: usize = 10;
/// Where `pd_checksum` is.
const CHECKSUM: std::ops::Range<usize> = 8..BEHIND_CHECKSUM;

type PageName = (RelTag, BlockNumber);

/// An image in a record.
struct Check {
    start: Lsn,
    end: Lsn,
    rmid: u8,
    page: PageName,
    image: BlockImage,
}

/// One whose page is being masked.
struct Masking {
    check: Check,
    our_lsn: Lsn,
    pair: MaskedPair,
}

/// The comparison under way.
pub(super) struct Checker<'m> {
    client: PageClient,
    masks: &'m Masks,
    /// Images by page, in the order of their records; the first of each is asked for, or its page is
    /// in `ready`.
    waiting: HashMap<PageName, VecDeque<Check>>,
    waiting_bytes: usize,
    /// Pages of which no version is asked for at the moment.
    ready: VecDeque<PageName>,
    asked: HashMap<u64, PageName>,
    masking: VecDeque<Masking>,
    early: ClearedEarly,
}

impl<'m> Checker<'m> {
    pub fn new(client: PageClient, masks: &'m Masks) -> Checker<'m> {
        Checker {
            client,
            masks,
            waiting: HashMap::new(),
            waiting_bytes: 0,
            ready: VecDeque::new(),
            asked: HashMap::new(),
            masking: VecDeque::new(),
            early: ClearedEarly::default(),
        }
    }

    /// Takes over the images of a record.
    pub fn take(&mut self, record: &WalRecord, report: &mut RecordsVerification) -> Result<()> {
        let decoded = DecodedRecord::parse(&record.bytes).map_err(|error| Error::Program {
            program: format!("decoding the record at {}", record.start),
            detail: error.to_string(),
        })?;
        report.records += 1;
        let rmid = decoded.header.rmid;
        report.manager(&manager_name(rmid)).records += 1;
        self.early.note(record.end, &decoded);
        for block in decoded.blocks {
            self.take_block(record, rmid, block, report);
        }
        Ok(())
    }

    fn take_block(
        &mut self,
        record: &WalRecord,
        rmid: u8,
        block: BlockRef,
        report: &mut RecordsVerification,
    ) {
        let Some(mut image) = block.image else { return };
        let counts = report.manager(&manager_name(rmid));
        if image.apply {
            counts.applied_images += 1;
        } else {
            counts.consistency_images += 1;
        }
        // Not to keep the whole chunk of WAL that it lies in.
        image.data = Bytes::copy_from_slice(&image.data);
        self.waiting_bytes += image.data.len();
        let page = (block.rel, block.block);
        let check = Check { start: record.start, end: record.end, rmid, page, image };
        let versions = self.waiting.entry(page).or_default();
        if versions.is_empty() {
            self.ready.push_back(page);
        }
        versions.push_back(check);
    }

    /// Whether enough waits.
    pub fn is_full(&self) -> bool {
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    /// Whether nothing waits any more.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.masking.is_empty()
    }

    /// Goes on with what waits.
    pub fn advance(&mut self, report: &mut RecordsVerification) -> Result<()> {
        while self.asked.len() < WINDOW
            && let Some(page) = self.ready.pop_front()
        {
            let Some(check) = self.waiting.get(&page).and_then(VecDeque::front) else { continue };
            let kind = RequestKind::GetPages { rel: page.0, first: page.1, count: 1 };
            let id = self.client.send(check.end, kind).map_err(page_error)?;
            self.asked.insert(id, page);
        }
        if self.asked.is_empty() {
            return self.finish_masks(0, report);
        }
        self.client.flush().map_err(page_error)?;
        let response = self.client.recv().map_err(page_error)?;
        self.answered(response, report)?;
        // What else has come by now.
        while let Some(response) = self.client.try_recv().map_err(page_error)? {
            self.answered(response, report)?;
        }
        self.finish_masks(MASKS_AHEAD, report)
    }

    /// What can be judged only at the end.
    pub fn finish(self, report: &mut RecordsVerification) -> Result<()> {
        for difference in self.early.into_unexplained() {
            let permitted = &mut report.images.permitted;
            if let Some(count) = permitted.get_mut(&Permitted::VisibilityBitClearedEarly) {
                *count = count.saturating_sub(1);
            }
            report.differs(difference);
        }
        report.images.permitted.retain(|_, count| *count > 0);
        Ok(())
    }

    fn answered(&mut self, response: Response, report: &mut RecordsVerification) -> Result<()> {
        let page = self.asked.remove(&response.id);
        let page = page.ok_or_else(|| page_error(PageClientError::WrongAnswer))?;
        let Some(versions) = self.waiting.get_mut(&page) else { return Ok(()) };
        let Some(check) = versions.pop_front() else { return Ok(()) };
        self.waiting_bytes -= check.image.data.len();
        if versions.is_empty() {
            self.waiting.remove(&page);
        } else {
            self.ready.push_back(page);
        }
        report.images.compared += 1;
        match response.body {
            ResponseBody::Pages(bytes) => {
                let ours = PageImage::from_slice(&bytes);
                let ours = ours.ok_or_else(|| page_error(PageClientError::WrongAnswer))?;
                self.compare(check, &ours, report)
            }
            ResponseBody::Error { code, message } => {
                if let ErrorCode::ShuttingDown | ErrorCode::Busy = code {
                    return Err(page_error(PageClientError::Refused { code, message }));
                }
                let detail = format!("the page server cannot give it: {message}");
                report.differs(check.difference(None, detail));
                Ok(())
            }
            _ => Err(page_error(PageClientError::WrongAnswer)),
        }
    }

    fn compare(
        &mut self,
        check: Check,
        ours: &PageImage,
        report: &mut RecordsVerification,
    ) -> Result<()> {
        let image = match check.image.restore(check.end) {
            Ok(image) => image,
            Err(error) => {
                report.differs(check.difference(Some(ours), error.to_string()));
                return Ok(());
            }
        };
        if ours[BEHIND_CHECKSUM..] == image[BEHIND_CHECKSUM..]
            && (!check.image.apply || ours[..CHECKSUM.start] == image[..CHECKSUM.start])
        {
            report.images.equal += 1;
            return Ok(());
        }
        if check.page.0.fork == ForkNumber::Fsm {
            // A hint, given out without what is behind the relation's end, or made anew at that very LSN.
            *report.images.permitted.entry(Permitted::FreeSpaceMap).or_default() += 1;
            return Ok(());
        }
        if check.image.apply {
            // It has become the page, down to the last byte.
            match check.pair(Sides::AppliedImage, ours, &image).explain() {
                Ok(reasons) if reasons.contains(&Masked::GistFollowRight) => {
                    report.images.add_masked(&reasons);
                }
                Ok(_) => report.images.equal += 1,
                Err(detail) => report.differs(check.difference(Some(ours), detail)),
            }
            return Ok(());
        }
        if check.page.0.fork == ForkNumber::Vm {
            // PostgreSQL's mask takes the bits for unused space.
            return self.compare_visibility(check, ours, &image, report);
        }
        let pair = self.masks.begin(check.pair(Sides::Image, ours, &image));
        self.masking.push_back(Masking { check, our_lsn: ours.lsn(), pair });
        Ok(())
    }

    fn compare_visibility(
        &mut self,
        check: Check,
        ours: &PageImage,
        image: &PageImage,
        report: &mut RecordsVerification,
    ) -> Result<()> {
        if unlogged::has_bits_of_copy(check.page.0, ours, image) {
            *report.images.permitted.entry(Permitted::VisibilityOfCopiedDatabase).or_default() += 1;
            return Ok(());
        }
        let detail = differing_bytes(ours, image, BEHIND_CHECKSUM).unwrap_or_default();
        let difference = check.difference(Some(ours), detail);
        if self.early.expect(check.page, check.end, ours, image, &difference) {
            *report.images.permitted.entry(Permitted::VisibilityBitClearedEarly).or_default() += 1;
        } else {
            report.differs(difference);
        }
        Ok(())
    }

    /// Waits for masks until at most `left` are under way.
    fn finish_masks(&mut self, left: usize, report: &mut RecordsVerification) -> Result<()> {
        while self.masking.len() > left
            && let Some(Masking { check, our_lsn, pair }) = self.masking.pop_front()
        {
            match pair.finish()? {
                Ok(reasons) => report.images.add_masked(&reasons),
                Err(detail) => {
                    let mut difference = check.difference(None, detail);
                    difference.our_lsn = Some(our_lsn);
                    report.differs(difference);
                }
            }
        }
        Ok(())
    }
}

impl Check {
    fn pair<'p>(&self, sides: Sides, ours: &'p PageImage, theirs: &'p PageImage) -> Pair<'p> {
        let mask = MaskKind::ResourceManager(self.rmid);
        Pair { mask, sides, block: self.page.1, at: self.end, ours, theirs }
    }

    fn difference(&self, ours: Option<&PageImage>, detail: String) -> Difference {
        Difference {
            kind: "image",
            relation: Some(self.page.0),
            block: Some(self.page.1),
            our_lsn: ours.map(PageImage::lsn),
            their_lsn: Some(self.end),
            record: Some(self.start),
            manager: Some(manager_name(self.rmid)),
            detail,
            ..Difference::default()
        }
    }
}

fn manager_name(rmid: u8) -> String {
    rmgr::name(rmid).map_or_else(|| rmid.to_string(), str::to_owned)
}
