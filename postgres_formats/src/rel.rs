//! What names a page of a relation: tablespace, database, relation, fork, block.
//!
//! Source: PostgreSQL `storage/relfilenode.h`, `common/relpath.h`, `storage/block.h`.

use std::fmt;
use std::str::FromStr;

/// A PostgreSQL object id. Zero is PostgreSQL's "no object" (`InvalidOid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Oid(pub u32);

impl Oid {
    /// The default tablespace, `base/`.
    pub const DEFAULT_TABLESPACE: Oid = Oid(1663);
    /// The tablespace of relations shared by all databases, `global/`.
    pub const GLOBAL_TABLESPACE: Oid = Oid(1664);
    /// `InvalidOid`; as a database it stands for "shared by all databases".
    pub const INVALID: Oid = Oid(0);
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Index of a page within a fork of a relation, counted over all its 1 GiB segment files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockNumber(pub u32);

impl BlockNumber {
    /// The largest block number there can be; the number above it is `InvalidBlockNumber`.
    pub const MAX: BlockNumber = BlockNumber(u32::MAX - 1);
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of a relation's files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ForkNumber {
    /// The relation's data.
    Main = 0,
    /// The free space map.
    Fsm = 1,
    /// The visibility map.
    Vm = 2,
    /// The initial content of an unlogged relation.
    Init = 3,
}

impl ForkNumber {
    /// Every fork, in PostgreSQL's order.
    pub const ALL: [ForkNumber; 4] =
        [ForkNumber::Main, ForkNumber::Fsm, ForkNumber::Vm, ForkNumber::Init];

    /// The fork with PostgreSQL's number `n`.
    pub fn from_u8(n: u8) -> Option<ForkNumber> {
        ForkNumber::ALL.get(usize::from(n)).copied()
    }

    /// PostgreSQL's name: `main`, `fsm`, `vm` or `init`.
    pub fn name(self) -> &'static str {
        match self {
            ForkNumber::Main => "main",
            ForkNumber::Fsm => "fsm",
            ForkNumber::Vm => "vm",
            ForkNumber::Init => "init",
        }
    }
}

impl fmt::Display for ForkNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a fork.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a fork: expected main, fsm, vm or init")]
pub struct ParseForkNumberError(String);

impl FromStr for ForkNumber {
    type Err = ParseForkNumberError;

    fn from_str(text: &str) -> Result<ForkNumber, ParseForkNumberError> {
        ForkNumber::ALL
            .into_iter()
            .find(|fork| fork.name() == text)
            .ok_or_else(|| ParseForkNumberError(text.to_owned()))
    }
}

/// PostgreSQL's physical name of a relation, without a fork (`RelFileNode` in version 15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFileLocator {
    /// Tablespace.
    pub spc: Oid,
    /// Database, `Oid::INVALID` for a shared relation.
    pub db: Oid,
    /// The relation's file number, not its oid.
    pub rel: Oid,
}

impl RelFileLocator {
    /// The name of one of this relation's forks.
    pub fn fork(self, fork: ForkNumber) -> RelTag {
        RelTag { spc: self.spc, db: self.db, rel: self.rel, fork }
    }
}

impl fmt::Display for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc, self.db, self.rel)
    }
}

impl fmt::Debug for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One fork of a relation. Field order is PostgreSQL's, so that the derived order sorts by
/// tablespace, database, relation, fork.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelTag {
    /// Tablespace.
    pub spc: Oid,
    /// Database, `Oid::INVALID` for a shared relation.
    pub db: Oid,
    /// The relation's file number, not its oid.
    pub rel: Oid,
    /// Which of its files.
    pub fork: ForkNumber,
}

impl RelTag {
    /// The relation this is a fork of.
    pub fn locator(self) -> RelFileLocator {
        RelFileLocator { spc: self.spc, db: self.db, rel: self.rel }
    }
}

impl fmt::Display for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc, self.db, self.rel)?;
        if self.fork != ForkNumber::Main {
            write!(f, "_{}", self.fork)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
