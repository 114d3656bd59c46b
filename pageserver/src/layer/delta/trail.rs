//! `Trail`: the checkpoint state at every LSN, in two or three bytes for a record.
//!
//! A server can be begun at the end of any record only if it is known where that is, where the record
//! before it began, and what a checkpoint there would say. As long as the WAL is there, decoding tells
//! that. A layer stands in for the WAL, and so has it in pieces: the state where a piece begins, and for
//! each record how long it is and which words of the state it has changed.
//!
//! ```text
//! state     116 bytes: checkpoint, parameters (as PostgreSQL writes them), start of the record before u64
//! record*   varint: bytes of the record in the WAL, page headers included, times 4
//!                   + 1 if something lies between it and the end of the record before
//!                   + 2 if it changed the state
//!           [varint: bytes between]
//!           [varint: mask of changed words of 4 bytes; the words]
//! ```

use layers::varint;
use postgres_formats::Lsn;
use postgres_formats::checkpoint::{CHECKPOINT_SIZE, CheckPoint, CheckpointState};
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::server_parameters::{PARAMETERS_SIZE, ServerParameters};

use crate::timeline::StateAt;

/// What records change: checkpoint and parameters.
const WORDS: usize = (CHECKPOINT_SIZE + PARAMETERS_SIZE) / 4;
/// Records of one piece: this bounds what is decoded for one answer.
const PIECE_RECORDS_MAX: u32 = 4096;

type Words = [[u8; 4]; WORDS];

fn words(state: &CheckpointState) -> Words {
    let bytes = [&state.checkpoint.encode()[..], &state.parameters.encode_record()[..]].concat();
    let mut words = [[0; 4]; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    words
}

fn state(words: &Words, prev_record: Lsn) -> Option<CheckpointState> {
    let bytes = words.concat();
    let (checkpoint, parameters) = bytes.split_at_checked(CHECKPOINT_SIZE)?;
    Some(CheckpointState {
        checkpoint: CheckPoint::decode(checkpoint).ok()?,
        parameters: ServerParameters::decode_record(parameters).ok()?,
        prev_record,
    })
}

/// Writes a trail, record after record.
pub struct TrailWriter {
    words: Words,
    /// End of the last record.
    end: Lsn,
    prev_record: Lsn,
    piece: Vec<u8>,
    begun_at: Lsn,
    records: u32,
}

impl TrailWriter {
    /// A trail that begins with `state` at `at`, the end of a record.
    pub fn new(at: Lsn, state: &CheckpointState) -> TrailWriter {
        let prev_record = state.prev_record;
        let mut writer = TrailWriter {
            words: words(state),
            end: at,
            prev_record,
            piece: Vec::new(),
            begun_at: at,
            records: 0,
        };
        writer.begin();
        writer
    }

    fn begin(&mut self) {
        self.piece = self.words.concat();
        self.piece.extend(self.prev_record.as_u64().to_le_bytes());
        self.begun_at = self.end;
        self.records = 0;
    }

    /// Adds the record from `start` to `end`, after which the state is `state`. Gives a piece that is
    /// complete by that, and where it begins.
    pub fn add(&mut self, start: Lsn, end: Lsn, state: &CheckpointState) -> Option<(Lsn, Vec<u8>)> {
        let gap = start.distance_from(self.end).unwrap_or(0);
        let now = words(state);
        let mut mask = 0_u64;
        for (number, (before, now)) in self.words.iter().zip(&now).enumerate() {
            mask |= u64::from(before != now) << number;
        }
        let length = end.distance_from(start).unwrap_or(0);
        varint::put(&mut self.piece, length << 2 | u64::from(gap != 0) | u64::from(mask != 0) << 1);
        if gap != 0 {
            varint::put(&mut self.piece, gap);
        }
        if mask != 0 {
            varint::put(&mut self.piece, mask);
            for (before, now) in self.words.iter().zip(&now) {
                if before != now {
                    self.piece.extend(now);
                }
            }
        }
        self.words = now;
        self.end = end;
        self.prev_record = start;
        self.records += 1;
        (self.records == PIECE_RECORDS_MAX).then(|| {
            let piece = (self.begun_at, std::mem::take(&mut self.piece));
            self.begin();
            piece
        })
    }

    /// The last piece, and where it begins.
    pub fn finish(self) -> (Lsn, Vec<u8>) {
        (self.begun_at, self.piece)
    }
}

/// The state at `lsn`, or at the end of the last record before it, by the piece that begins at `begin`;
/// `None` if the bytes are no piece.
pub fn state_at(
    piece: &[u8],
    begin: Lsn,
    lsn: Lsn,
    segment_size: WalSegmentSize,
) -> Option<StateAt> {
    let mut words: Words = [[0; 4]; WORDS];
    let mut rest = piece;
    for word in &mut words {
        *word = take(&mut rest)?;
    }
    let mut prev_record = Lsn::new(u64::from_le_bytes(take(&mut rest)?));
    let mut end = begin;
    while !rest.is_empty() {
        let length = take_varint(&mut rest)?;
        let gap = if length & 1 != 0 { take_varint(&mut rest)? } else { 0 };
        let start = end.saturating_add(gap);
        let record_end = start.saturating_add(length >> 2);
        let is_behind = record_end > lsn;
        if length & 2 != 0 {
            let mask = take_varint(&mut rest)?;
            if mask >> WORDS != 0 {
                return None;
            }
            for (number, word) in words.iter_mut().enumerate() {
                if mask >> number & 1 != 0 {
                    let changed = take(&mut rest)?;
                    if !is_behind {
                        *word = changed;
                    }
                }
            }
        }
        if is_behind {
            break;
        }
        end = record_end;
        prev_record = start;
    }
    Some(StateAt { base: end.normalized(segment_size), state: state(&words, prev_record)? })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = varint::take(rest)?;
    *rest = after;
    Some(number)
}
