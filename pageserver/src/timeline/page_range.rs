//! Plans of many pages of one object at one LSN, made together: each stretch of history is looked through once,
//! and what is true of the object is found once.

use std::sync::Arc;

use layers::Lsn;
use postgres_formats::BlockNumber;

use super::page_plan::{Base, Ground, MadePages, Plan};
use super::{Below, Timeline};
use crate::index::PageHistory;
use crate::layer::image::LayerError;
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::stretch::PagesAt;

/// Pages that are still looked for in the same place.
struct Part {
    timeline: Arc<Timeline>,
    /// The name that they have there.
    object: ObjectTag,
    lsn: Lsn,
    /// Their numbers among all that are planned, in ascending order.
    pages: Vec<usize>,
}

impl Timeline {
    /// Finds what pages of `object` are made of at `lsn`: a plan for each of `blocks`, which are in
    /// ascending order. One may be there more than once.
    ///
    /// # Errors
    /// A layer cannot be read. It may be that only one of the pages needs it.
    pub(super) fn plan_pages(
        self: &Arc<Self>,
        object: ObjectTag,
        lsn: Lsn,
        blocks: &[BlockNumber],
    ) -> Result<Vec<Plan>, LayerError> {
        let mut plans: Vec<Plan> = blocks.iter().map(|_| Plan::default()).collect();
        let pages = (0..blocks.len()).collect();
        let mut parts = vec![Part { timeline: self.clone(), object, lsn, pages }];
        while let Some(part) = parts.pop() {
            part.plan(blocks, &mut plans, &mut parts)?;
        }
        Ok(plans)
    }

    /// The plan for one page.
    pub(super) fn plan(self: &Arc<Self>, page: ObjectPage, lsn: Lsn) -> Result<Plan, LayerError> {
        let plan = self.plan_pages(page.object, lsn, &[page.block])?.pop();
        Ok(plan.unwrap_or_else(|| unreachable!("one page has one plan")))
    }
}

impl Part {
    /// Goes through the stretches of the timeline. What is looked for elsewhere is added to `parts`.
    fn plan(
        mut self,
        blocks: &[BlockNumber],
        plans: &mut [Plan],
        parts: &mut Vec<Part>,
    ) -> Result<(), LayerError> {
        let timeline = self.timeline.clone();
        let made_pages = MadePages::of(&timeline);
        let made = |page, end| made_pages.get(page, end);
        let mut copies: Vec<((DbTag, Lsn), Vec<usize>)> = Vec::new();
        let all = self.blocks(blocks);
        // The cache is looked at when no lock is held any more.
        let (found, older, below) = timeline.ask_open(|open| {
            open.page_histories(&PagesAt {
                object: self.object,
                blocks: &all,
                at: self.lsn,
                made: &made,
            })
        });
        self.take(found?, &made_pages, blocks, plans, &mut copies);
        for stretch in older.iter() {
            if self.pages.is_empty() {
                break;
            }
            let left = self.blocks(blocks);
            let asked = PagesAt { object: self.object, blocks: &left, at: self.lsn, made: &made };
            self.take(stretch.page_histories(&asked)?, &made_pages, blocks, plans, &mut copies);
        }
        for ((from, at), pages) in copies {
            let object = self.object.in_database(from);
            parts.push(Part { timeline: timeline.clone(), object, lsn: at, pages });
        }
        if self.pages.is_empty() {
            return Ok(());
        }
        match &*below {
            Below::Ancestor(ancestor, at) => {
                let lsn = self.lsn.min(*at);
                parts.push(Part { timeline: ancestor.clone(), lsn, ..self });
            }
            Below::Image(_) => {
                for &page in &self.pages {
                    let name = self.name(blocks, page);
                    if let Some(plan) = plans.get_mut(page) {
                        plan.base = Base::Image(below.clone(), name);
                    }
                }
            }
            Below::Nothing => {}
        }
        Ok(())
    }

    fn blocks(&self, blocks: &[BlockNumber]) -> Vec<BlockNumber> {
        self.pages.iter().filter_map(|page| blocks.get(*page).copied()).collect()
    }

    fn name(&self, blocks: &[BlockNumber], page: usize) -> ObjectPage {
        let block = blocks.get(page).copied();
        let block = block.unwrap_or_else(|| unreachable!("pages are numbered by their blocks"));
        ObjectPage { object: self.object, block }
    }

    /// Takes in what a stretch says of the pages that are left, and keeps those of which more is to be found.
    fn take(
        &mut self,
        found: Vec<PageHistory>,
        made: &MadePages<'_>,
        blocks: &[BlockNumber],
        plans: &mut [Plan],
        copies: &mut Vec<((DbTag, Lsn), Vec<usize>)>,
    ) {
        debug_assert_eq!(found.len(), self.pages.len(), "each page has its history");
        let mut left = Vec::new();
        for (page, history) in self.pages.iter().copied().zip(found) {
            let name = self.name(blocks, page);
            let Some(plan) = plans.get_mut(page) else { continue };
            match plan.take(&self.timeline, made, name, history) {
                Some(Ground::Base(base)) => plan.base = base,
                Some(Ground::CopyOf(from, at)) => {
                    match copies.iter_mut().find(|(copy, _)| *copy == (from, at)) {
                        Some((_, pages)) => pages.push(page),
                        None => copies.push(((from, at), vec![page])),
                    }
                }
                None => left.push(page),
            }
        }
        self.pages = left;
    }
}

#[cfg(test)]
mod tests;
