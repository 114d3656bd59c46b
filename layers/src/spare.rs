//! Memory of blocks that nobody has any more, for the next that are read.
//!
//! Blocks are about 32 KiB each, and those that leave the cache make room for as many others. The system's allocator
//! takes long for pieces of that size, and gives what was not used for a moment back to the kernel, which hands it out again
//! page by page, filled with zeros.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Pieces that are kept, at most: 2.2 MiB.
const PIECES_MAX: usize = 64;
/// Smallest capacity in bytes of a piece that is kept, and largest.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = 16 << 10..=36 << 10;

// LOCK ORDER: alone, for a few instructions.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Something empty with room for so many bytes.
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    if PIECE_BYTES.contains(&bytes) {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut spare) = spare {
            spare.clear();
            spare.reserve_exact(bytes);
            return spare;
        }
    }
    Vec::with_capacity(bytes)
}

/// What was put into that, to be shared. When nobody has a part of it any more, its memory is kept.
pub(crate) fn share(bytes: Vec<u8>) -> Bytes {
    match PIECE_BYTES.contains(&bytes.capacity()) {
        true => Bytes::from_owner(Piece(bytes)),
        false => bytes.into(),
    }
}

struct Piece(Vec<u8>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < PIECES_MAX {
            spare.push(std::mem::take(&mut self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_again_when_nobody_has_a_part_of_it() {
        // Others of these tests take some, too.
        let mut kept = Vec::new();
        for number in 0..200_u8 {
            let mut piece = take(20_000);
            assert!(piece.is_empty() && piece.capacity() >= 20_000);
            piece.resize(20_000, number);
            let shared = share(piece);
            kept.push((number, shared.slice(19_000..)));
            if number % 3 == 0 {
                kept.remove(0);
            }
            assert!(kept.iter().all(|(number, part)| part.iter().all(|byte| byte == number)));
        }
        drop(kept);
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).len();
        assert!((1..=PIECES_MAX).contains(&spare), "{spare}");
    }
}
