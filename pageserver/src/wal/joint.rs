//! `Joint`: whether a server's WAL continues what has been received, seen where the two overlap.
//!
//! A server may say rightly that it is the writer and yet not be the one that was followed: its
//! directory may have been put back as it was some time ago. Its WAL then ends before what was
//! received, or has gone on differently, and from the joint on it would be taken without a fault if it
//! happens to have a record that begins there. So streaming begins a little before the joint, and
//! nothing is taken, nor reported as received, before these bytes have been seen to be the same.
//!
//! The records of a transaction's end and of checkpoints have their time in them, so that two histories
//! that have parted do not have the same bytes for long.

use std::io;

use postgres_formats::Lsn;

use super::identity::Refusal;
use super::store::WalStore;
use crate::timeline::Timeline;

/// Bytes that are compared, at most.
const OVERLAP_MAX: u64 = 1 << 20;

/// The last bytes received, to be sent again.
pub(super) struct Joint {
    wal: WalStore,
    /// Where comparing goes on.
    at: Lsn,
    end: Lsn,
}

/// Why the joint does not fit.
#[derive(Debug, thiserror::Error)]
pub(super) enum JointError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot read what was received")]
    Io(#[from] io::Error),
}

impl Joint {
    /// The joint at `end`, where receiving goes on. Before `own_start` the server's WAL is not its
    /// own: a compute begins with a page that was made up.
    ///
    /// The bytes are of one segment, for the server may have removed the one before.
    pub(super) fn new(timeline: &Timeline, own_start: Lsn, end: Lsn) -> Joint {
        let cluster = timeline.cluster();
        let wal = WalStore::new(timeline.wal_dir().to_owned(), cluster.segment_size, cluster.tli);
        let segment_start = end.segment(cluster.segment_size).start(cluster.segment_size);
        let overlap = Lsn::new(end.as_u64().saturating_sub(OVERLAP_MAX));
        let at = own_start.max(segment_start).max(overlap).min(end);
        Joint { wal, at, end }
    }

    /// Where the server has to begin.
    pub(super) fn start(&self) -> Lsn {
        self.at
    }

    /// Whether there is nothing left to be compared.
    pub(super) fn is_closed(&self) -> bool {
        self.at >= self.end
    }

    /// Compares what the server sent next, and gives what is left of it behind the joint.
    pub(super) fn compare<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], JointError> {
        let left = self.end.distance_from(self.at).unwrap_or(0);
        let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (sent, rest) = bytes.split_at(count);
        let mut received = vec![0; count];
        if self.wal.read(self.at, &mut received)? != count {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(n) = sent.iter().zip(&received).position(|(a, b)| a != b) {
            let at = self.at.saturating_add(n as u64);
            return Err(Refusal::Diverged { at, received: self.end }.into());
        }
        self.at = self.at.saturating_add(count as u64);
        Ok(rest)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use postgres_formats::lsn::WalSegmentSize;

    use super::*;

    #[test]
    fn the_same_bytes_close_it_and_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = || WalStore::new(dir.path().to_owned(), WalSegmentSize::DEFAULT, 1);
        let at = Lsn::new(0x2000_0100);
        let bytes: Vec<u8> = (0..100).collect();
        store().write(at, &bytes).unwrap();
        let end = at.saturating_add(100);
        let joint = || Joint { wal: store(), at, end };

        let mut good = joint();
        assert_eq!(good.compare(&bytes[..30]).unwrap(), b"");
        assert!(!good.is_closed());
        let longer: Vec<u8> = bytes[30..].iter().copied().chain([7, 8]).collect();
        assert_eq!(good.compare(&longer).unwrap(), [7, 8]);
        assert!(good.is_closed());

        let mut other = bytes.clone();
        other[41] ^= 1;
        let error = joint().compare(&other).unwrap_err();
        let expected = Refusal::Diverged { at: at.saturating_add(41), received: end };
        assert!(matches!(error, JointError::Refused(found) if found == expected));

        let mut beyond = Joint { end: end.saturating_add(1), ..joint() };
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert!(matches!(beyond.compare(&longer), Err(JointError::Io(_))));
    }
}
