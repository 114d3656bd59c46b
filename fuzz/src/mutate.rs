//! A simple mutator for the smoke test: what bit rot, cut-off files, wrong lengths and mixed-up
//! buffers do to well-formed bytes.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

/// Longest input that is made, in bytes.
const INPUT_BYTES_MAX: usize = 96 * 1024;
/// Values at which arithmetic goes wrong.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
];

/// An input made from one of `seeds`, or now and then from nothing.
pub fn input(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = match seeds.choose(random) {
        Some(seed) if random.random_ratio(15, 16) => seed.clone(),
        _ => {
            let mut noise = vec![0; random.random_range(0..2048)];
            random.fill_bytes(&mut noise);
            noise
        }
    };
    for _ in 0..random.random_range(0..6) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    if bytes.is_empty() {
        bytes.push(random.random());
        return;
    }
    // Headers stand in front, and are where most can go wrong.
    let reach = if random.random() { bytes.len() } else { bytes.len().min(64) };
    let at = random.random_range(0..reach);
    match random.random_range(0..8) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => {
            let edge = EDGES.choose(random).copied().unwrap_or(0).to_le_bytes();
            let size = [1, 2, 4, 8][random.random_range(0..4)];
            for (byte, value) in bytes.iter_mut().skip(at).zip(edge.into_iter().take(size)) {
                *byte = value;
            }
        }
        3 => bytes[at] = bytes[at].wrapping_add(if random.random() { 1 } else { 0xFF }),
        4 => bytes.truncate(at),
        5 => {
            let length = random.random_range(1..=64.min(bytes.len() - at));
            bytes.drain(at..at + length);
        }
        6 => {
            let length = random.random_range(1..=64.min(bytes.len() - at));
            let piece = bytes[at..at + length].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            if let Some(other) = seeds.choose(random).filter(|other| !other.is_empty()) {
                let from = random.random_range(0..other.len());
                let length = random.random_range(1..=256.min(other.len() - from));
                for (byte, value) in bytes.iter_mut().skip(at).zip(&other[from..from + length]) {
                    *byte = *value;
                }
            }
        }
    }
}
