//! `Cluster`: what stays the same over the whole history of a PostgreSQL cluster.

use postgres_formats::SystemId;
use postgres_formats::control_file::{ControlFile, ControlFileError};
use postgres_formats::lsn::WalSegmentSize;

/// The facts of `pg_control` that never change, and the file itself as a pattern for new ones.
#[derive(Clone)]
pub struct Cluster {
    /// The control file as it was when the cluster was loaded.
    pub control_file: ControlFile,
    /// Which `initdb` it all began with.
    pub system_id: SystemId,
    /// Size of a WAL segment.
    pub segment_size: WalSegmentSize,
    /// PostgreSQL's own timeline number, as in the names of WAL segments.
    pub tli: u32,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// The bytes of the control file.
    pub control_file_bytes: Vec<u8>,
}

impl Cluster {
    /// Takes the facts out of the bytes of `pg_control`.
    ///
    /// # Errors
    /// As `ControlFile::decode`.
    pub fn from_control_file(bytes: &[u8]) -> Result<Cluster, ControlFileError> {
        let control_file = ControlFile::decode(bytes)?;
        Ok(Cluster {
            system_id: control_file.system_identifier,
            segment_size: control_file.xlog_seg_size,
            tli: control_file.check_point_copy.this_tli,
            checksums: control_file.has_data_checksums(),
            control_file_bytes: bytes.to_vec(),
            control_file,
        })
    }
}
