//! The base LSN of a compute: where it is kept, and how it moves while the compute runs.
//!
//! A small file that every process of the compute has mapped. It holds the LSN in two slots, each
//! with a checksum; the later LSN of those that check out counts. A move writes the other slot, so
//! there is a good one at any moment, whatever breaks off. The LSN only ever grows.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `ZBASELSN` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 + 8 | the LSN at which the compute was made, its checksum |
//! | 32 | 8 + 8 | slot 0: LSN, checksum |
//! | 48 | 8 + 8 | slot 1 |

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use postgres_formats::Lsn;

use crate::mapping::Mapping;

const MAGIC: u64 = u64::from_le_bytes(*b"ZBASELSN");
const VERSION: u32 = 1;
const SIZE: usize = 64;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_MADE: usize = 16;
const AT_SLOTS: [usize; 2] = [32, 48];

/// How often a reader looks again that finds both slots being written: two moves in a row have
/// overtaken it.
const LOOKS_MAX: u32 = 100;

/// What can be wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The operating system refused.
    #[error("could not {action} base LSN {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It holds no LSN that checks out.
    #[error("base LSN {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer release.
    #[error("base LSN {} has format version {version}, but this release knows only {VERSION}", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// The base LSN of a compute, shared with every other process that has it open.
#[derive(Debug)]
pub struct BaseLsn {
    mapping: Mapping,
    made_at: Lsn,
    /// The latest that this process has seen.
    seen: AtomicU64,
}

/// The bytes of the file of a compute whose base LSN is `lsn`.
pub fn encode(lsn: Lsn) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for _ in 0..3 {
        bytes.extend_from_slice(&lsn.as_u64().to_le_bytes());
        bytes.extend_from_slice(&checksum(lsn.as_u64()).to_le_bytes());
    }
    bytes
}

impl BaseLsn {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<BaseLsn, BaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(io_error("open", path))?;
        let damaged = || BaseError::Damaged { path: path.to_owned() };
        if file.metadata().map_err(io_error("look at", path))?.len() != SIZE as u64 {
            return Err(damaged());
        }
        let mapping = Mapping::new(&file, SIZE).map_err(io_error("map", path))?;
        if mapping.u64(AT_MAGIC).load(Ordering::Relaxed) != MAGIC {
            return Err(damaged());
        }
        let version = mapping.u32(AT_VERSION).load(Ordering::Relaxed);
        if version != VERSION {
            return Err(BaseError::NewerVersion { path: path.to_owned(), version });
        }
        let made_at = slot(&mapping, AT_MADE).ok_or_else(damaged)?;
        let base = BaseLsn { mapping, made_at: Lsn::new(made_at), seen: AtomicU64::new(made_at) };
        if AT_SLOTS.iter().all(|at| slot(&base.mapping, *at).is_none()) {
            return Err(damaged());
        }
        Ok(base)
    }

    /// Where it is now.
    pub fn get(&self) -> Lsn {
        for _ in 0..LOOKS_MAX {
            let slots = AT_SLOTS.iter().filter_map(|at| slot(&self.mapping, *at));
            if let Some(lsn) = slots.max() {
                return Lsn::new(self.seen.fetch_max(lsn, Ordering::Relaxed).max(lsn));
            }
            std::hint::spin_loop();
        }
        // An earlier one is as right.
        Lsn::new(self.seen.load(Ordering::Relaxed))
    }

    /// Where it was when the compute was made.
    pub fn made_at(&self) -> Lsn {
        self.made_at
    }

    /// Moves it to `lsn`, durably, unless it is there or further already. Only one process may do
    /// so at a time.
    pub fn advance(&self, lsn: Lsn) -> io::Result<()> {
        let now = AT_SLOTS.map(|at| slot(&self.mapping, at));
        if now.iter().flatten().max() >= Some(&lsn.as_u64()) {
            return Ok(());
        }
        // The slot that does not count: the earlier one, or the one that does not check out.
        let [first, second] = AT_SLOTS;
        let at = if now[0] < now[1] { first } else { second };
        self.mapping.u64(at).store(lsn.as_u64(), Ordering::Release);
        self.mapping.u64(at + 8).store(checksum(lsn.as_u64()), Ordering::Release);
        self.mapping.sync()
    }
}

/// The LSN in the slot at `at` if its checksum fits.
fn slot(mapping: &Mapping, at: usize) -> Option<u64> {
    let check = mapping.u64(at + 8).load(Ordering::Acquire);
    let lsn = mapping.u64(at).load(Ordering::Acquire);
    (checksum(lsn) == check).then_some(lsn)
}

/// Mixes all bits, so that neither zeros nor a torn slot check out.
fn checksum(lsn: u64) -> u64 {
    let mut mixed = (lsn ^ MAGIC).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BaseError {
    let path = path.to_owned();
    move |source| BaseError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn lsn(n: u64) -> Lsn {
        Lsn::new(n)
    }

    #[test]
    fn it_moves_forward_before_everybodys_eyes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        fs::write(&path, encode(lsn(0x100))).unwrap();
        let (mover, reader) = (BaseLsn::open(&path).unwrap(), BaseLsn::open(&path).unwrap());
        assert_eq!((reader.get(), reader.made_at()), (lsn(0x100), lsn(0x100)));
        for at in [0x200, 0x150, 0x1_0000_0000, 0x1_0000_0008] {
            mover.advance(lsn(at)).unwrap();
            assert_eq!(reader.get(), lsn(at.max(0x200)));
            assert_eq!(BaseLsn::open(&path).unwrap().get(), reader.get());
        }
        assert_eq!(BaseLsn::open(&path).unwrap().made_at(), lsn(0x100));
    }

    #[test]
    fn a_move_that_breaks_off_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        fs::write(&path, encode(lsn(0x100))).unwrap();
        BaseLsn::open(&path).unwrap().advance(lsn(0x200)).unwrap();
        let good = fs::read(&path).unwrap();
        BaseLsn::open(&path).unwrap().advance(lsn(0x300)).unwrap();
        let moved = fs::read(&path).unwrap();
        for torn in 1..SIZE {
            let bytes = [&moved[..torn], &good[torn..]].concat();
            fs::write(&path, bytes).unwrap();
            let base = BaseLsn::open(&path).unwrap().get();
            assert!(base == lsn(0x200) || base == lsn(0x300), "{torn}: {base}");
            BaseLsn::open(&path).unwrap().advance(lsn(0x400)).unwrap();
            assert_eq!(BaseLsn::open(&path).unwrap().get(), lsn(0x400));
        }
    }

    #[test]
    fn damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        assert!(matches!(BaseLsn::open(&path), Err(BaseError::Io { .. })));
        fs::write(&path, encode(lsn(0x100))).unwrap();
        let good = fs::read(&path).unwrap();
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let mut both = changed(AT_SLOTS[0], 7);
        both[AT_SLOTS[1]] = 7;
        for bad in [good[..60].to_vec(), changed(0, 7), changed(AT_MADE, 7), both, vec![0; SIZE]] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(BaseLsn::open(&path), Err(BaseError::Damaged { .. })));
        }
        fs::write(&path, changed(AT_VERSION, 2)).unwrap();
        let newer = BaseLsn::open(&path);
        assert!(matches!(newer, Err(BaseError::NewerVersion { version: 2, .. })));
    }

    #[test]
    fn readers_see_it_grow_while_it_moves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        fs::write(&path, encode(lsn(1))).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let base = BaseLsn::open(&path).unwrap();
                let mut last = lsn(0);
                while last < lsn(3000) {
                    let now = base.get();
                    assert!(now >= last && now <= lsn(3000), "{now} after {last}");
                    last = now;
                }
            });
            let base = BaseLsn::open(&path).unwrap();
            (2..=3000).for_each(|n| base.advance(lsn(n)).unwrap());
            reader.join().unwrap();
        });
    }
}
