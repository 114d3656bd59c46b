//! `Chain`: how many records a page needs that follow each other in a layer in the making.

use bytes::Bytes;

use super::values;

/// Counts the records of a page since it last stood there whole, or was made anew.
pub(super) struct Chain {
    max: u32,
    key: Bytes,
    records: u32,
}

impl Chain {
    /// At most `max` records are to follow each other.
    pub fn new(max: u32) -> Chain {
        Chain { max: max.max(1), key: Bytes::new(), records: 0 }
    }

    /// Takes in the next version of a page. Whether it should be the page instead of a record.
    pub fn add(&mut self, key: &Bytes, kind: u8) -> bool {
        if self.key != *key {
            self.key = key.clone();
            self.records = 0;
        }
        if values::needs_nothing_older(kind) {
            self.records = 0;
            return false;
        }
        self.records += 1;
        self.records > self.max
    }

    /// The page stands there.
    pub fn cut(&mut self) {
        self.records = 0;
    }

    /// If it should have been the page, that cannot be had just now: asks again after some more records.
    pub fn put_off_if_due(&mut self) {
        if self.records > self.max {
            self.records -= self.max.div_ceil(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of so many versions of a page become the page.
    fn cuts(kinds: &[u8], max: u32, can_be_had: impl Fn(usize) -> bool) -> Vec<usize> {
        let (mut chain, key) = (Chain::new(max), Bytes::from_static(b"page"));
        let mut cuts = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            if chain.add(&key, *kind) {
                match can_be_had(number) {
                    true => {
                        cuts.push(number);
                        chain.cut();
                    }
                    false => chain.put_off_if_due(),
                }
            }
        }
        cuts
    }

    #[test]
    fn no_more_records_follow_each_other() {
        let (record, native, anew) = (0x20, 0x22, 0x21);
        assert_eq!(cuts(&[record; 12], 4, |_| true), [4, 9]);
        assert_eq!(cuts(&[native; 5], 4, |_| true), [4]);
        assert_eq!(cuts(&[anew; 9], 4, |_| true), []);
        let image = values::PAGE_IMAGE;
        assert_eq!(cuts(&[record, record, image, record, record, record], 2, |_| true), [5]);
        assert_eq!(cuts(&[record; 12], 4, |number| number > 4), [5, 10]);
        assert_eq!(cuts(&[record; 7], 0, |_| true), [1, 3, 5]);
    }

    #[test]
    fn each_page_counts_for_itself() {
        let mut chain = Chain::new(1);
        for page in [b"a", b"b", b"c"] {
            assert!(!chain.add(&Bytes::from_static(page), 0x20));
        }
        assert!(chain.add(&Bytes::from_static(b"c"), 0x20));
    }
}
