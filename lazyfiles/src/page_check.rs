//! What can be known about a page without asking anyone else.

use postgres_formats::{BLCKSZ, Lsn};

/// Why a page cannot be what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPage {
    /// Not `BLCKSZ` bytes.
    #[error("it has the wrong size")]
    Size,
    /// Changed after the LSN at which it was asked for.
    #[error("its LSN {0} is later")]
    TooNew(Lsn),
    /// PostgreSQL would refuse to use it.
    #[error("its header makes no sense")]
    Header,
}

/// Checks a page received for the state at `base`: its last change is not later, and its header is
/// one that PostgreSQL accepts (`PageIsVerifiedExtended` in `storage/page/bufpage.c`).
pub fn check(page: &[u8], base: Lsn) -> Result<(), BadPage> {
    let page: &[u8; BLCKSZ] = page.try_into().map_err(|_| BadPage::Size)?;
    let u16_at = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let u32_at = |at: usize| u64::from(u16_at(at)) | u64::from(u16_at(at + 2)) << 16;

    let lsn = Lsn::new(u32_at(0) << 32 | u32_at(4));
    let (flags, lower, upper, special) = (u16_at(10), u16_at(12), u16_at(14), u16_at(16));
    if upper == 0 {
        // Never initialised: then all of it is zero.
        return if page.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(BadPage::Header) };
    }
    if lsn > base {
        return Err(BadPage::TooNew(lsn));
    }
    let known_flags = 0x0007;
    let ok = flags & !known_flags == 0
        && lower <= upper
        && upper <= special
        && usize::from(special) <= BLCKSZ
        && special % 8 == 0;
    if ok { Ok(()) } else { Err(BadPage::Header) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lsn: u64, lower: u16, upper: u16, special: u16) -> Vec<u8> {
        let mut page = vec![0; BLCKSZ];
        page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        for (at, value) in [(12, lower), (14, upper), (16, special)] {
            page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    #[test]
    fn pages_are_judged_as_postgresql_does() {
        let base = Lsn::new(0x1_0000_0100);
        assert_eq!(check(&page(0x1_0000_0100, 24, 8192, 8192), base), Ok(()));
        assert_eq!(check(&vec![0; BLCKSZ], base), Ok(()));
        assert_eq!(check(&[0; 100], base), Err(BadPage::Size));
        assert_eq!(
            check(&page(0x1_0000_0108, 24, 8192, 8192), base),
            Err(BadPage::TooNew(Lsn::new(0x1_0000_0108)))
        );
        assert_eq!(check(&page(8, 24, 20, 8192), base), Err(BadPage::Header));
        assert_eq!(check(&page(8, 24, 8192, 8190), base), Err(BadPage::Header));
        assert_eq!(check(&page(8, 24, 8192, 8200), base), Err(BadPage::Header));
        assert_eq!(check(&page(8, 0, 0, 0), base), Err(BadPage::Header));
    }
}
