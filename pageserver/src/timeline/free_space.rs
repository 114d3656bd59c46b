//! Free space maps: made for images, and given out so that they do no harm. See `free_space`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postgres_formats::{BlockNumber, ForkNumber, Lsn, PageImage, RelFileLocator, free_space_map};

use super::Timeline;
use super::freeze::FreezeError;
use super::get_page::{GetPageError, PageRequest};
use super::image::BATCH_PAGES;
use crate::free_space::{self, Maps};
use crate::object::ObjectTag;
use crate::page::Page;

/// Everything that an image is made of has been received.
const NO_WAIT: Duration = Duration::ZERO;

impl Timeline {
    /// Puts the sizes of the free space maps that an image of `source` at `lsn` is to have into the list of all
    /// objects. Which relations are tables is seen from their first pages.
    ///
    /// # Errors
    /// A page cannot be had; those of `give_way`.
    pub(super) fn plan_maps(
        &self,
        source: &Arc<Timeline>,
        lsn: Lsn,
        objects: &mut BTreeMap<ObjectTag, u32>,
    ) -> Result<Maps, FreezeError> {
        free_space::remove_orphans(objects);
        let relations: Vec<(RelFileLocator, u32)> = objects
            .iter()
            .filter_map(|(object, size)| match object {
                ObjectTag::Rel(rel) if rel.fork == ForkNumber::Main && *size > 0 => {
                    // Nobody knows what is in an unlogged relation.
                    let init = ObjectTag::Rel(rel.locator().fork(ForkNumber::Init));
                    (!objects.contains_key(&init)).then_some((rel.locator(), *size))
                }
                _ => None,
            })
            .collect();
        let mut maps = Maps::default();
        for relations in relations.chunks(BATCH_PAGES) {
            let first = |(rel, _): &(RelFileLocator, u32)| {
                PageRequest::rel(rel.fork(ForkNumber::Main), BlockNumber(0), lsn)
            };
            let firsts: Vec<PageRequest> = relations.iter().map(first).collect();
            for (page, (rel, pages)) in self.make_for_image(source, &firsts)?.iter().zip(relations)
            {
                if let Some(size) = maps.add_table(*rel, *pages, page) {
                    objects.insert(ObjectTag::Rel(rel.fork(ForkNumber::Fsm)), size);
                }
            }
        }
        Ok(maps)
    }

    /// Makes pages of `source` for an image, those of maps out of the tables' pages that have gone by.
    ///
    /// # Errors
    /// A page cannot be had; those of `give_way`.
    pub(super) fn make_with_maps(
        &self,
        source: &Arc<Timeline>,
        requests: &[PageRequest],
        maps: &mut Maps,
    ) -> Result<Vec<Arc<PageImage>>, FreezeError> {
        let others = requests.iter().filter(|request| maps.table_of(request.page).is_none());
        let others: Vec<PageRequest> = others.copied().collect();
        let mut made = self.make_for_image(source, &others)?.into_iter();
        let mut pages = Vec::with_capacity(requests.len());
        for request in requests {
            let page = match maps.table_of(request.page) {
                Some((table, size)) => Arc::new(self.map_page(source, request, table, size, maps)?),
                None => {
                    let page = made.next();
                    let page = page.unwrap_or_else(|| unreachable!("each request has its page"));
                    maps.look(request.page, &page);
                    page
                }
            };
            pages.push(page);
        }
        Ok(pages)
    }

    fn map_page(
        &self,
        source: &Arc<Timeline>,
        request: &PageRequest,
        table: RelFileLocator,
        size: u32,
        maps: &mut Maps,
    ) -> Result<PageImage, FreezeError> {
        let page = request.page;
        let mut map = maps.page(table, page.block);
        if map.is_none() {
            // The table's pages went by in an earlier run.
            let main = table.fork(ForkNumber::Main);
            for first in (0..size).step_by(BATCH_PAGES) {
                let blocks = first..size.min(first.saturating_add(BATCH_PAGES as u32));
                let request = |block| PageRequest::rel(main, BlockNumber(block), request.lsn);
                let batch: Vec<PageRequest> = blocks.map(request).collect();
                for (page, request) in self.make_for_image(source, &batch)?.iter().zip(&batch) {
                    maps.look(request.page, page);
                }
            }
            map = maps.page(table, page.block);
        }
        let mut map = map.unwrap_or_else(|| unreachable!("all pages have gone by"));
        self.set_checksum(page, &mut map);
        Ok(map)
    }

    fn make_for_image(
        &self,
        source: &Arc<Timeline>,
        requests: &[PageRequest],
    ) -> Result<Vec<Arc<PageImage>>, FreezeError> {
        self.give_way()?;
        let made = source.make_pages(requests, NO_WAIT).into_iter();
        made.map(|page| Ok(page?.into_image())).collect()
    }

    /// A page as it can be given out. One of a free space map names no page that the table has not, and is
    /// zeros behind the map's end.
    ///
    /// # Errors
    /// `made`, but for that; the table's size cannot be found.
    pub(super) fn sound_hint(
        &self,
        request: &PageRequest,
        made: Result<Page, GetPageError>,
    ) -> Result<Page, GetPageError> {
        let PageRequest { page, lsn } = *request;
        let Some(table) = free_space::table_of_map(page.object) else { return made };
        let map = match made {
            Err(GetPageError::NotFound { size: Some(_), .. }) => return Ok(Page::zeros()),
            made => made?,
        };
        let pages = self.object_size(table, lsn)?.unwrap_or(0);
        if !free_space_map::names_behind(pages, page.block, &map) {
            return Ok(map);
        }
        let mut sound = Arc::unwrap_or_clone(map.into_image());
        free_space_map::clear_behind(pages, page.block, &mut sound);
        self.set_checksum(page, &mut sound);
        Ok(Page::Made(Arc::new(sound)))
    }
}

#[cfg(test)]
mod tests;
