//! `ControlFile`: the contents of `global/pg_control`.
//!
//! Source: `ControlFileData` in PostgreSQL `catalog/pg_control.h`. The file has 8192 bytes: the
//! structure of 288 bytes, its CRC-32C, and zeros. Offsets are those of a 64-bit little-endian
//! machine with 8-byte alignment, the only kind supported.

use crate::checkpoint::{CHECKPOINT_SIZE, CheckPoint};
use crate::field_reader::{FieldReader, Truncated};
use crate::lsn::{WalSegmentSize, XLOG_BLCKSZ};
use crate::page::BLCKSZ;
use crate::relpath::{BLOCKS_PER_SEGMENT, CATALOG_VERSION};
use crate::{Lsn, ServerParameters, SystemId};

/// Size in bytes of the file (`PG_CONTROL_FILE_SIZE`).
pub const CONTROL_FILE_SIZE: usize = 8192;
/// `PG_CONTROL_VERSION` of PostgreSQL 13 to 17.
pub const CONTROL_VERSION: u32 = 1300;
/// Path of the file relative to the data directory.
pub const CONTROL_FILE_PATH: &str = "global/pg_control";

/// Offset in bytes of the checksum, which covers everything before it.
const CRC_OFFSET: usize = 288;
/// Where the counter that stands for an LSN on pages of unlogged relations begins, also after each
/// crash, since these relations are empty then (`FirstNormalUnloggedLSN`).
pub const FIRST_UNLOGGED_LSN: Lsn = Lsn::new(1000);
/// `FLOATFORMAT_VALUE`: shows whether floating point numbers are stored as we think.
const FLOAT_FORMAT: f64 = 1234567.0;

/// Why bytes are not a usable control file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// The file must have exactly [`CONTROL_FILE_SIZE`] bytes.
    #[error("control file has {0} bytes instead of {CONTROL_FILE_SIZE}")]
    WrongSize(usize),
    /// The cluster belongs to another major version of PostgreSQL.
    #[error(
        "cluster is of PostgreSQL {}, not 15 (control file version {control_version}, \
         catalog version {catalog_version})",
        major_version(*control_version, *catalog_version)
    )]
    OtherMajorVersion {
        /// `pg_control_version` of the file.
        control_version: u32,
        /// `catalog_version_no` of the file.
        catalog_version: u32,
    },
    /// The file is damaged.
    #[error("control file's checksum is {found:08X}, but its bytes give {computed:08X}")]
    BadCrc {
        /// The checksum in the file.
        found: u32,
        /// CRC-32C of its contents.
        computed: u32,
    },
    /// The cluster was made by a server that was built with other settings than we support.
    #[error("cluster has {name} {found}, but only {expected} is supported")]
    Unsupported {
        /// What is different, in PostgreSQL's words.
        name: &'static str,
        /// Its value in the file, as a number.
        found: u64,
        /// The only value supported.
        expected: u64,
    },
    /// A field has a value that PostgreSQL never writes.
    #[error("control file's {name} cannot be {found}")]
    Impossible {
        /// The field, in PostgreSQL's words.
        name: &'static str,
        /// Its value in the file.
        found: u32,
    },
    /// A field reaches past the end; excluded by the check of the size.
    #[error("control file ends too early: {0}")]
    Truncated(#[from] Truncated),
}

/// The name of the version with these numbers, for the error message.
fn major_version(control_version: u32, catalog_version: u32) -> &'static str {
    match (control_version, catalog_version) {
        (1201, _) => "12",
        (_, 202007201) => "13",
        (_, 202107181) => "14",
        (_, 202209061) => "15",
        (_, 202307071) => "16",
        (_, 202406281) => "17",
        (1800, _) => "18",
        _ => "an unknown version",
    }
}

/// What the cluster was doing when the file was written (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ClusterState {
    /// Starting for the first time.
    Startup = 0,
    /// Shut down cleanly.
    ShutDown = 1,
    /// A standby that was shut down cleanly.
    ShutDownInRecovery = 2,
    /// Shutting down.
    ShuttingDown = 3,
    /// Recovering from a crash.
    InCrashRecovery = 4,
    /// A standby, or restoring from an archive.
    InArchiveRecovery = 5,
    /// Running.
    InProduction = 6,
}

impl ClusterState {
    fn from_u32(n: u32) -> Option<ClusterState> {
        use ClusterState::*;
        [
            Startup,
            ShutDown,
            ShutDownInRecovery,
            ShuttingDown,
            InCrashRecovery,
            InArchiveRecovery,
            InProduction,
        ]
        .into_iter()
        .find(|&state| state as u32 == n)
    }
}

/// The fields of a control file that mean something to storage, and the bytes of all the others.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlFile {
    /// Which `initdb` the cluster began with.
    pub system_identifier: SystemId,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was written, in seconds since 1970.
    pub time: i64,
    /// Start of the last checkpoint's record.
    pub check_point: Lsn,
    /// What that record says.
    pub check_point_copy: CheckPoint,
    /// The counter that stands for an LSN on pages of unlogged relations.
    pub unlogged_lsn: Lsn,
    /// Recovery must get at least this far; invalid if none is going on.
    pub min_recovery_point: Lsn,
    /// PostgreSQL's timeline number of `min_recovery_point`.
    pub min_recovery_point_tli: u32,
    /// Redo position of the base backup being restored; invalid if there is none.
    pub backup_start_point: Lsn,
    /// Where that backup ended, if it was taken from a standby.
    pub backup_end_point: Lsn,
    /// Whether recovery must find the record that ends a backup.
    pub backup_end_required: bool,
    /// Settings of the server when it last ran.
    pub parameters: ServerParameters,
    /// Size of WAL segments.
    pub xlog_seg_size: WalSegmentSize,
    /// 0: pages carry no checksums; 1: they do.
    pub data_checksum_version: u32,
    /// A random number used in authentication.
    pub mock_authentication_nonce: [u8; 32],
    /// The whole file, for what is not named above.
    template: Box<[u8]>,
}

impl ControlFile {
    /// Reads the 8192 bytes of a control file, and checks that it is a PostgreSQL 15 cluster of
    /// the only supported build settings.
    pub fn decode(bytes: &[u8]) -> Result<ControlFile, ControlFileError> {
        if bytes.len() != CONTROL_FILE_SIZE {
            return Err(ControlFileError::WrongSize(bytes.len()));
        }
        let mut fields = FieldReader::new(bytes);
        let system_identifier = SystemId(fields.u64()?);
        let control_version = fields.u32()?;
        let catalog_version = fields.u32()?;
        // Before the checksum, which another version has at another place.
        if control_version != CONTROL_VERSION || catalog_version != CATALOG_VERSION {
            return Err(ControlFileError::OtherMajorVersion { control_version, catalog_version });
        }
        let covered = FieldReader::new(bytes).bytes(CRC_OFFSET)?;
        let mut behind = FieldReader::new(bytes);
        behind.skip(CRC_OFFSET)?;
        let found = behind.u32()?;
        let computed = crc32c::crc32c(covered);
        if found != computed {
            return Err(ControlFileError::BadCrc { found, computed });
        }

        let state = fields.u32()?;
        let state = ClusterState::from_u32(state)
            .ok_or(ControlFileError::Impossible { name: "state", found: state })?;
        fields.skip(4)?;
        let time = fields.i64()?;
        let check_point = Lsn::new(fields.u64()?);
        let check_point_copy = CheckPoint::decode(fields.bytes(CHECKPOINT_SIZE)?)?;
        let unlogged_lsn = Lsn::new(fields.u64()?);
        let min_recovery_point = Lsn::new(fields.u64()?);
        let min_recovery_point_tli = fields.u32()?;
        fields.skip(4)?;
        let backup_start_point = Lsn::new(fields.u64()?);
        let backup_end_point = Lsn::new(fields.u64()?);
        let backup_end_required = read_bool(&mut fields)?;
        let parameters = ServerParameters {
            wal_level: fields.i32()?,
            wal_log_hints: read_bool(&mut fields)?,
            max_connections: fields.i32()?,
            max_worker_processes: fields.i32()?,
            max_wal_senders: fields.i32()?,
            max_prepared_xacts: fields.i32()?,
            max_locks_per_xact: fields.i32()?,
            track_commit_timestamp: read_bool(&mut fields)?,
        };

        let expect = |name, expected: u64, found: u64| {
            if found == expected {
                Ok(())
            } else {
                Err(ControlFileError::Unsupported { name, found, expected })
            }
        };
        expect("alignment", 8, fields.u32()?.into())?;
        expect("floating point format", FLOAT_FORMAT.to_bits(), fields.u64()?)?;
        expect("block size", BLCKSZ as u64, fields.u32()?.into())?;
        expect("blocks per segment", BLOCKS_PER_SEGMENT.into(), fields.u32()?.into())?;
        expect("WAL block size", XLOG_BLCKSZ, fields.u32()?.into())?;
        let seg_size = fields.u32()?;
        let xlog_seg_size = WalSegmentSize::new(seg_size)
            .ok_or(ControlFileError::Impossible { name: "WAL segment size", found: seg_size })?;
        // Name length, index columns, TOAST and large object chunk sizes, float8 by value.
        fields.skip(5 * 4)?;
        let data_checksum_version = fields.u32()?;
        let mock_authentication_nonce = fields.array()?;
        Ok(ControlFile {
            system_identifier,
            catalog_version,
            state,
            time,
            check_point,
            check_point_copy,
            unlogged_lsn,
            min_recovery_point,
            min_recovery_point_tli,
            backup_start_point,
            backup_end_point,
            backup_end_required,
            parameters,
            xlog_seg_size,
            data_checksum_version,
            mock_authentication_nonce,
            template: bytes.into(),
        })
    }

    /// The file's 8192 bytes with a new checksum. What this structure does not name keeps the
    /// bytes that were decoded.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.template.to_vec();
        let mut put = |at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(0, &self.system_identifier.0.to_le_bytes());
        put(8, &CONTROL_VERSION.to_le_bytes());
        put(12, &self.catalog_version.to_le_bytes());
        put(16, &(self.state as u32).to_le_bytes());
        put(24, &self.time.to_le_bytes());
        put(32, &self.check_point.as_u64().to_le_bytes());
        put(40, &self.check_point_copy.encode());
        put(128, &self.unlogged_lsn.as_u64().to_le_bytes());
        put(136, &self.min_recovery_point.as_u64().to_le_bytes());
        put(144, &self.min_recovery_point_tli.to_le_bytes());
        put(152, &self.backup_start_point.as_u64().to_le_bytes());
        put(160, &self.backup_end_point.as_u64().to_le_bytes());
        put(168, &[u8::from(self.backup_end_required)]);
        put(172, &self.parameters.wal_level.to_le_bytes());
        put(176, &[u8::from(self.parameters.wal_log_hints)]);
        put(180, &self.parameters.max_connections.to_le_bytes());
        put(184, &self.parameters.max_worker_processes.to_le_bytes());
        put(188, &self.parameters.max_wal_senders.to_le_bytes());
        put(192, &self.parameters.max_prepared_xacts.to_le_bytes());
        put(196, &self.parameters.max_locks_per_xact.to_le_bytes());
        put(200, &[u8::from(self.parameters.track_commit_timestamp)]);
        put(228, &(self.xlog_seg_size.bytes() as u32).to_le_bytes());
        put(252, &self.data_checksum_version.to_le_bytes());
        put(256, &self.mock_authentication_nonce);
        let crc = crc32c::crc32c(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The control file of a cluster that `initdb` would make with PostgreSQL's defaults and page
    /// checksums, not yet started.
    pub fn for_new_cluster(system_identifier: SystemId) -> ControlFile {
        let mut template = vec![0; CONTROL_FILE_SIZE];
        let mut put = |at: usize, field: &[u8]| {
            template[at..at + field.len()].copy_from_slice(field);
        };
        put(204, &8u32.to_le_bytes()); // maxAlign
        put(208, &FLOAT_FORMAT.to_le_bytes()); // floatFormat
        put(216, &(BLCKSZ as u32).to_le_bytes()); // blcksz
        put(220, &BLOCKS_PER_SEGMENT.to_le_bytes()); // relseg_size
        put(224, &(XLOG_BLCKSZ as u32).to_le_bytes()); // xlog_blcksz
        put(232, &64u32.to_le_bytes()); // nameDataLen
        put(236, &32u32.to_le_bytes()); // indexMaxKeys
        put(240, &1996u32.to_le_bytes()); // toast_max_chunk_size
        put(244, &2048u32.to_le_bytes()); // loblksize
        put(248, &[1]); // float8ByVal
        ControlFile {
            system_identifier,
            catalog_version: CATALOG_VERSION,
            state: ClusterState::ShutDown,
            time: 0,
            check_point: Lsn::INVALID,
            check_point_copy: CheckPoint::default(),
            unlogged_lsn: FIRST_UNLOGGED_LSN,
            min_recovery_point: Lsn::INVALID,
            min_recovery_point_tli: 0,
            backup_start_point: Lsn::INVALID,
            backup_end_point: Lsn::INVALID,
            backup_end_required: false,
            parameters: ServerParameters::default(),
            xlog_seg_size: WalSegmentSize::DEFAULT,
            data_checksum_version: 1,
            mock_authentication_nonce: [0; 32],
            template: template.into(),
        }
    }

    /// Makes this the control file of a cluster that was shut down cleanly, with its checkpoint's
    /// record at `at`: PostgreSQL starts from it without any recovery.
    pub fn set_shut_down(&mut self, at: Lsn, check_point: CheckPoint) {
        self.state = ClusterState::ShutDown;
        self.time = check_point.time;
        self.check_point = at;
        self.check_point_copy = check_point;
        self.min_recovery_point = Lsn::INVALID;
        self.min_recovery_point_tli = 0;
        self.backup_start_point = Lsn::INVALID;
        self.backup_end_point = Lsn::INVALID;
        self.backup_end_required = false;
    }

    /// Whether pages carry checksums.
    pub fn has_data_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}

/// A C `bool` and the padding up to the 4-byte field behind it.
fn read_bool(fields: &mut FieldReader<'_>) -> Result<bool, Truncated> {
    let value = fields.u8()? != 0;
    fields.skip(3)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn round_trips_and_keeps_unknown_bytes() {
        let mut file = ControlFile::for_new_cluster(SystemId(42));
        file.check_point_copy.next_oid = crate::Oid(12345);
        file.mock_authentication_nonce = [7; 32];
        let mut bytes = file.encode();
        let back = ControlFile::decode(&bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.check_point_copy.next_oid, crate::Oid(12345));
        bytes[8191] = 9;
        assert_eq!(ControlFile::decode(&bytes).unwrap().encode(), bytes);
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        let good = ControlFile::for_new_cluster(SystemId(42)).encode();
        let mut other = good.clone();
        other[12..16].copy_from_slice(&202307071u32.to_le_bytes());
        let error = ControlFile::decode(&other).unwrap_err();
        assert!(matches!(error, ControlFileError::OtherMajorVersion { .. }));
        assert!(error.to_string().starts_with("cluster is of PostgreSQL 16, not 15"));

        let mut damaged = good.clone();
        damaged[100] ^= 1;
        let error = ControlFile::decode(&damaged).unwrap_err();
        assert!(matches!(error, ControlFileError::BadCrc { .. }));

        let mut blocks = good.clone();
        blocks[216..220].copy_from_slice(&16384u32.to_le_bytes());
        let crc = crc32c::crc32c(&blocks[..CRC_OFFSET]);
        blocks[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
        let error = ControlFile::decode(&blocks).unwrap_err();
        assert_eq!(error.to_string(), "cluster has block size 16384, but only 8192 is supported");

        assert_eq!(ControlFile::decode(&good[1..]), Err(ControlFileError::WrongSize(8191)));
    }
}
