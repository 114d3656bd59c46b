//! Faults on purpose, so that tests can see that `zenith verify` finds them.
//!
//! Only in builds with debug assertions, as the test suite uses them; otherwise there is nothing here
//! but functions that do nothing. `ZENITH_DAMAGE` holds the faults, separated by `;`:
//!
//! ```text
//! flip OBJECT BLOCK BYTE BITS    that byte of that page is given out with these bits inverted; OBJECT
//!                                as messages name it: "relation 1663/5/16384_vm", "pg_xact/0000"
//! short OBJECT                   the object is given out with its last page missing
//! forget OBJECT                  the object is not in the list of all that there is
//! keep-visibility                records clear no bits of visibility maps
//! since LSN FAULT                the same, of records from there on, or of what is given out as of later
//! ```

#[cfg(debug_assertions)]
use std::sync::Arc;

use postgres_formats::Lsn;

use crate::object::{ObjectPage, ObjectTag};
use crate::page::Page;

#[cfg(debug_assertions)]
mod faults {
    use std::sync::OnceLock;

    use postgres_formats::Lsn;

    const VARIABLE: &str = "ZENITH_DAMAGE";

    /// A fault.
    pub(super) enum Kind {
        Flip { object: String, block: u32, byte: usize, bits: u8 },
        Short { object: String },
        Forget { object: String },
        KeepVisibility,
    }

    /// A fault, and from which LSN on it is there.
    pub(super) struct Fault {
        pub since: Lsn,
        pub kind: Kind,
    }

    /// Those that are wished for and there at `lsn`. What makes no sense is none.
    pub(super) fn at(lsn: Lsn) -> impl Iterator<Item = &'static Kind> {
        static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
        let all = FAULTS.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            text.split(';').filter_map(|item| parse(item.trim())).collect()
        });
        all.iter().filter(move |fault| lsn >= fault.since).map(|fault| &fault.kind)
    }

    pub(super) fn parse(text: &str) -> Option<Fault> {
        let Some(rest) = text.strip_prefix("since ") else {
            return Some(Fault { since: Lsn::INVALID, kind: parse_kind(text)? });
        };
        let (since, kind) = rest.split_once(' ')?;
        Some(Fault { since: since.parse().ok()?, kind: parse_kind(kind)? })
    }

    fn parse_kind(text: &str) -> Option<Kind> {
        if text == "keep-visibility" {
            return Some(Kind::KeepVisibility);
        }
        if let Some(object) = text.strip_prefix("short ") {
            return Some(Kind::Short { object: object.to_owned() });
        }
        if let Some(object) = text.strip_prefix("forget ") {
            return Some(Kind::Forget { object: object.to_owned() });
        }
        let mut words = text.strip_prefix("flip ")?.rsplitn(4, ' ');
        let bits = words.next()?.parse().ok()?;
        let byte = words.next()?.parse().ok()?;
        let block = words.next()?.parse().ok()?;
        Some(Kind::Flip { object: words.next()?.to_owned(), block, byte, bits })
    }
}

/// A page as it is given out.
#[cfg(debug_assertions)]
pub(crate) fn page(name: ObjectPage, lsn: Lsn, page: Page) -> Page {
    let mut page = page;
    for fault in faults::at(lsn) {
        if let faults::Kind::Flip { object, block, byte, bits } = fault
            && *block == name.block.0
            && *object == name.object.to_string()
        {
            let mut image = page.into_image();
            if let Some(damaged) = Arc::make_mut(&mut image).get_mut(*byte) {
                *damaged ^= bits;
            }
            page = Page::Made(image);
        }
    }
    page
}

/// An object's size as it is given out.
#[cfg(debug_assertions)]
pub(crate) fn size(name: ObjectTag, lsn: Lsn, size: u32) -> u32 {
    let is_short = faults::at(lsn).any(
        |fault| matches!(fault, faults::Kind::Short { object } if *object == name.to_string()),
    );
    size.saturating_sub(u32::from(is_short))
}

/// Whether an object is left out of the list of all that there is.
#[cfg(debug_assertions)]
pub(crate) fn is_forgotten(name: ObjectTag, lsn: Lsn) -> bool {
    faults::at(lsn).any(
        |fault| matches!(fault, faults::Kind::Forget { object } if *object == name.to_string()),
    )
}

/// Whether bits of visibility maps are not cleared.
#[cfg(debug_assertions)]
pub(crate) fn keeps_visibility(lsn: Lsn) -> bool {
    faults::at(lsn).any(|fault| matches!(fault, faults::Kind::KeepVisibility))
}

/// A page as it is given out.
#[cfg(not(debug_assertions))]
pub(crate) fn page(_: ObjectPage, _: Lsn, page: Page) -> Page {
    page
}

/// An object's size as it is given out.
#[cfg(not(debug_assertions))]
pub(crate) fn size(_: ObjectTag, _: Lsn, size: u32) -> u32 {
    size
}

/// Whether an object is left out of the list of all that there is.
#[cfg(not(debug_assertions))]
pub(crate) fn is_forgotten(_: ObjectTag, _: Lsn) -> bool {
    false
}

/// Whether bits of visibility maps are not cleared.
#[cfg(not(debug_assertions))]
pub(crate) fn keeps_visibility(_: Lsn) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use postgres_formats::Lsn;

    use super::faults::{Kind, parse};

    #[test]
    fn faults_by_their_text() {
        let kind = |text| parse(text).map(|fault| fault.kind);
        assert!(matches!(
            kind("flip relation 1663/5/16384_vm 0 24 3"),
            Some(Kind::Flip { object, block: 0, byte: 24, bits: 3 })
                if object == "relation 1663/5/16384_vm"
        ));
        assert!(matches!(kind("short pg_xact/0000"), Some(Kind::Short { .. })));
        assert!(matches!(kind("forget pg_xact/0000"), Some(Kind::Forget { .. })));
        assert!(matches!(kind("keep-visibility"), Some(Kind::KeepVisibility)));
        assert!(kind("").is_none() && kind("flip x 1 2").is_none());
        let since = |text| parse(text).map(|fault| fault.since);
        assert_eq!(since("keep-visibility"), Some(Lsn::INVALID));
        assert_eq!(since("since 0/77 keep-visibility"), Some(Lsn::new(0x77)));
        assert!(kind("since 0/77").is_none() && kind("since x keep-visibility").is_none());
    }
}
