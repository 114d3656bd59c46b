//! `CustomManagers`: the resource managers that libraries of extensions have registered.

use crate::protocol::CUSTOM_MIN;

/// The ids of custom resource managers (`RM_MIN_CUSTOM_ID` and above) that redo processes know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CustomManagers(u128);

impl CustomManagers {
    /// Those whose bits are set; the lowest is `CUSTOM_MIN`'s.
    pub fn from_bits(bits: u128) -> CustomManagers {
        CustomManagers(bits)
    }

    /// Whether the resource manager is one of them.
    pub fn contains(self, rmid: u8) -> bool {
        rmid.checked_sub(CUSTOM_MIN).is_some_and(|bit| self.0 >> bit & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_ids() {
        let managers = CustomManagers::from_bits(1 | 1 << 72 | 1 << 127);
        let ids: Vec<u8> = (0..=255).filter(|id| managers.contains(*id)).collect();
        assert_eq!(ids, [128, 200, 255]);
    }
}
