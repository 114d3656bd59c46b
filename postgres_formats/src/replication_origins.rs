//! `pg_logical/replorigin_checkpoint`: how far the logs of other servers have been applied.
//!
//! Source: `CheckPointReplicationOrigin`, `StartupReplicationOrigin` and `ReplicationStateOnDisk` in
//! PostgreSQL `backend/replication/logical/origin.c`.
//!
//! ```text
//! 0x1257DADE u32 | { origin u16, 6 bytes of zero, remote LSN u64 } ... | CRC-32C of all before u32
//! ```

use std::collections::BTreeMap;

use crate::Lsn;
use crate::field_reader::{FieldReader, Truncated};

/// Path of the file relative to the data directory.
pub const REPLICATION_ORIGINS_PATH: &str = "pg_logical/replorigin_checkpoint";
/// The origin of changes that are not to be replicated; its progress is not kept
/// (`DoNotReplicateId`).
pub const DO_NOT_REPLICATE: u16 = u16::MAX;

/// `REPLICATION_STATE_MAGIC`
const MAGIC: u32 = 0x1257_DADE;
const ITEM_SIZE: usize = 16;
/// Bytes around the items: magic and checksum.
const FRAME_SIZE: usize = 8;

/// How far the log of each origin has been applied, by the origin's number.
pub type ReplicationOrigins = BTreeMap<u16, Lsn>;

/// Why bytes are not such a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationOriginsError {
    /// It does not begin as such a file does.
    #[error("magic number is {0:#010X}")]
    Magic(u32),
    /// It does not consist of whole items.
    #[error("{0} bytes are not a whole number of items")]
    Length(usize),
    /// It is damaged.
    #[error("checksum is {found:08X}, but the bytes give {computed:08X}")]
    Crc {
        /// The checksum in the file.
        found: u32,
        /// CRC-32C of its contents.
        computed: u32,
    },
    /// A field reaches past the end; excluded by the check of the length.
    #[error(transparent)]
    Truncated(#[from] Truncated),
}

/// Reads the file's bytes.
pub fn decode(bytes: &[u8]) -> Result<ReplicationOrigins, ReplicationOriginsError> {
    let items = bytes.len().checked_sub(FRAME_SIZE).filter(|length| length % ITEM_SIZE == 0);
    let items = items.ok_or(ReplicationOriginsError::Length(bytes.len()))? / ITEM_SIZE;
    let covered = FieldReader::new(bytes).bytes(bytes.len() - 4)?;
    let mut fields = FieldReader::new(bytes);
    let magic = fields.u32()?;
    if magic != MAGIC {
        return Err(ReplicationOriginsError::Magic(magic));
    }
    let mut origins = ReplicationOrigins::new();
    for _ in 0..items {
        let origin = fields.u16()?;
        fields.skip(6)?;
        origins.insert(origin, Lsn::new(fields.u64()?));
    }
    let (found, computed) = (fields.u32()?, crc32c::crc32c(covered));
    if found != computed {
        return Err(ReplicationOriginsError::Crc { found, computed });
    }
    Ok(origins)
}

/// The file's bytes, with the origins in the order of their numbers: PostgreSQL has them in that of
/// their first progress, which means nothing.
pub fn encode(origins: &ReplicationOrigins) -> Vec<u8> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    for (origin, remote_lsn) in origins {
        bytes.extend_from_slice(&u64::from(*origin).to_le_bytes());
        bytes.extend_from_slice(&remote_lsn.as_u64().to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn comes_back_as_written_and_damage_is_noticed() {
        let origins = ReplicationOrigins::from([(3, Lsn::new(0x1_0000_0002)), (700, Lsn::new(9))]);
        let bytes = encode(&origins);
        assert_eq!(bytes.len(), 4 + 2 * 16 + 4);
        assert_eq!(bytes[..14], [0xDE, 0xDA, 0x57, 0x12, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(decode(&bytes), Ok(origins));
        assert_eq!(decode(&encode(&ReplicationOrigins::new())), Ok(ReplicationOrigins::new()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "{at} bytes");
        }
    }
}
