//! Transaction and multitransaction ids and their circular order.
//!
//! Source: PostgreSQL `access/transam.h`, `access/multixact.h`, `backend/access/transam/transam.c`.

use std::fmt;

/// A 32-bit transaction id. Ids below `TransactionId::FIRST_NORMAL` are special.
///
/// Deriving `Ord` would invite comparing with `<`, which is wrong once ids have wrapped around, but
/// maps need an order: it is the numeric one. Use [`TransactionId::precedes`] for "older".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// `InvalidTransactionId`.
    pub const INVALID: TransactionId = TransactionId(0);
    /// `FirstNormalTransactionId`; smaller ones stand for "none", "bootstrap" and "frozen".
    pub const FIRST_NORMAL: TransactionId = TransactionId(3);

    /// Whether a transaction can really have this id (`TransactionIdIsNormal`).
    pub const fn is_normal(self) -> bool {
        self.0 >= TransactionId::FIRST_NORMAL.0
    }

    /// Whether `self` is logically older than `other` (`TransactionIdPrecedes`): by distance modulo
    /// 2^32 between normal ids, numerically if either is special.
    pub const fn precedes(self, other: TransactionId) -> bool {
        if self.is_normal() && other.is_normal() {
            (self.0.wrapping_sub(other.0) as i32) < 0
        } else {
            self.0 < other.0
        }
    }

    /// The id after this one, skipping the special ones (`TransactionIdAdvance`).
    pub const fn next(self) -> TransactionId {
        let next = TransactionId(self.0.wrapping_add(1));
        if next.is_normal() { next } else { TransactionId::FIRST_NORMAL }
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction id that never wraps: the epoch in the upper half, the id in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FullTransactionId(pub u64);

impl FullTransactionId {
    /// The full id with this epoch and 32-bit id.
    pub const fn new(epoch: u32, xid: TransactionId) -> FullTransactionId {
        FullTransactionId((epoch as u64) << 32 | xid.0 as u64)
    }

    /// How often 32-bit ids had wrapped around.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The id as it appears in pages and WAL records.
    pub const fn xid(self) -> TransactionId {
        TransactionId(self.0 as u32)
    }
}

impl fmt::Display for FullTransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FullTransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.xid())
    }
}

/// Names a set of transactions that hold a tuple together. `Ord` is numeric, as for transaction ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MultiXactId(pub u32);

impl MultiXactId {
    /// `InvalidMultiXactId`.
    pub const INVALID: MultiXactId = MultiXactId(0);
    /// `FirstMultiXactId`.
    pub const FIRST: MultiXactId = MultiXactId(1);

    /// Whether `self` is logically older than `other` (`MultiXactIdPrecedes`).
    pub const fn precedes(self, other: MultiXactId) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// The id after this one, skipping the invalid one.
    pub const fn next(self) -> MultiXactId {
        let next = self.0.wrapping_add(1);
        if next == 0 { MultiXactId::FIRST } else { MultiXactId(next) }
    }

    /// The id before this one, skipping the invalid one (`PreviousMultiXactId`).
    pub const fn previous(self) -> MultiXactId {
        if self.0 == MultiXactId::FIRST.0 {
            MultiXactId(u32::MAX)
        } else {
            MultiXactId(self.0.wrapping_sub(1))
        }
    }
}

impl fmt::Display for MultiXactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MultiXactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_circular_for_normal_ids_only() {
        let x = TransactionId;
        assert!(x(u32::MAX).precedes(x(3)));
        assert!(!x(3).precedes(x(u32::MAX)));
        assert!(x(0).precedes(x(u32::MAX)));
        assert!(x(2).precedes(x(3)));
        assert_eq!(x(u32::MAX).next(), x(3));
        assert!(MultiXactId(u32::MAX).precedes(MultiXactId(1)));
        assert_eq!(MultiXactId(u32::MAX).next(), MultiXactId(1));
        assert_eq!(MultiXactId(1).previous(), MultiXactId(u32::MAX));
    }
}
