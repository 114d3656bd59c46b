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
//! ```

use std::sync::Arc;

use postgres_formats::PageImage;

use crate::object::{ObjectPage, ObjectTag};

#[cfg(debug_assertions)]
mod faults {
    use std::sync::OnceLock;

    const VARIABLE: &str = "ZENITH_DAMAGE";

    /// A fault.
    pub(super) enum Fault {
        Flip { object: String, block: u32, byte: usize, bits: u8 },
        Short { object: String },
        Forget { object: String },
        KeepVisibility,
    }

    /// Those that are wished for. What makes no sense is none.
    pub(super) fn all() -> &'static [Fault] {
        static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
        FAULTS.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            text.split(';').filter_map(|item| parse(item.trim())).collect()
        })
    }

    pub(super) fn parse(text: &str) -> Option<Fault> {
        if text == "keep-visibility" {
            return Some(Fault::KeepVisibility);
        }
        if let Some(object) = text.strip_prefix("short ") {
            return Some(Fault::Short { object: object.to_owned() });
        }
        if let Some(object) = text.strip_prefix("forget ") {
            return Some(Fault::Forget { object: object.to_owned() });
        }
        let mut words = text.strip_prefix("flip ")?.rsplitn(4, ' ');
        let bits = words.next()?.parse().ok()?;
        let byte = words.next()?.parse().ok()?;
        let block = words.next()?.parse().ok()?;
        Some(Fault::Flip { object: words.next()?.to_owned(), block, byte, bits })
    }
}

/// A page as it is given out.
#[cfg(debug_assertions)]
pub(crate) fn page(name: ObjectPage, image: Arc<PageImage>) -> Arc<PageImage> {
    let mut image = image;
    for fault in faults::all() {
        if let faults::Fault::Flip { object, block, byte, bits } = fault
            && *block == name.block.0
            && *object == name.object.to_string()
            && let Some(damaged) = Arc::make_mut(&mut image).get_mut(*byte)
        {
            *damaged ^= bits;
        }
    }
    image
}

/// An object's size as it is given out.
#[cfg(debug_assertions)]
pub(crate) fn size(name: ObjectTag, size: u32) -> u32 {
    let is_short = faults::all().iter().any(
        |fault| matches!(fault, faults::Fault::Short { object } if *object == name.to_string()),
    );
    size.saturating_sub(u32::from(is_short))
}

/// Whether an object is left out of the list of all that there is.
#[cfg(debug_assertions)]
pub(crate) fn is_forgotten(name: ObjectTag) -> bool {
    faults::all().iter().any(
        |fault| matches!(fault, faults::Fault::Forget { object } if *object == name.to_string()),
    )
}

/// Whether bits of visibility maps are not cleared.
#[cfg(debug_assertions)]
pub(crate) fn keeps_visibility() -> bool {
    faults::all().iter().any(|fault| matches!(fault, faults::Fault::KeepVisibility))
}

/// A page as it is given out.
#[cfg(not(debug_assertions))]
pub(crate) fn page(_: ObjectPage, image: Arc<PageImage>) -> Arc<PageImage> {
    image
}

/// An object's size as it is given out.
#[cfg(not(debug_assertions))]
pub(crate) fn size(_: ObjectTag, size: u32) -> u32 {
    size
}

/// Whether an object is left out of the list of all that there is.
#[cfg(not(debug_assertions))]
pub(crate) fn is_forgotten(_: ObjectTag) -> bool {
    false
}

/// Whether bits of visibility maps are not cleared.
#[cfg(not(debug_assertions))]
pub(crate) fn keeps_visibility() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::faults::{Fault, parse};

    #[test]
    fn faults_by_their_text() {
        assert!(matches!(
            parse("flip relation 1663/5/16384_vm 0 24 3"),
            Some(Fault::Flip { object, block: 0, byte: 24, bits: 3 })
                if object == "relation 1663/5/16384_vm"
        ));
        assert!(matches!(parse("short pg_xact/0000"), Some(Fault::Short { .. })));
        assert!(matches!(parse("forget pg_xact/0000"), Some(Fault::Forget { .. })));
        assert!(matches!(parse("keep-visibility"), Some(Fault::KeepVisibility)));
        assert!(parse("").is_none() && parse("flip x 1 2").is_none());
    }
}
