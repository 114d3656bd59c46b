//! `ServerParameters`: the settings of a server that its control file and its WAL tell.
//!
//! A server writes them when they differ from those it ran with before (`XLogReportParameters`),
//! so that a standby knows what it must be able to hold. Source: `xl_parameter_change` in
//! PostgreSQL `access/xlog_internal.h`, `ControlFileData` in `catalog/pg_control.h`.

use crate::field_reader::{FieldReader, Truncated};

/// Settings in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerParameters {
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_xacts: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_xact: i32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

/// Size in bytes of the parameters as a record has them, padding included.
pub const PARAMETERS_SIZE: usize = 28;

impl ServerParameters {
    /// Reads `xl_parameter_change`, the content of a
    /// [`PARAMETER_CHANGE`](crate::wal::rmgr::xlog::PARAMETER_CHANGE) record.
    pub fn decode_record(data: &[u8]) -> Result<ServerParameters, Truncated> {
        let mut fields = FieldReader::new(data);
        // In the order of the structure.
        let max_connections = fields.i32()?;
        let max_worker_processes = fields.i32()?;
        let max_wal_senders = fields.i32()?;
        let max_prepared_xacts = fields.i32()?;
        let max_locks_per_xact = fields.i32()?;
        let wal_level = fields.i32()?;
        let wal_log_hints = fields.u8()? != 0;
        let track_commit_timestamp = fields.u8()? != 0;
        Ok(ServerParameters {
            wal_level,
            wal_log_hints,
            max_connections,
            max_worker_processes,
            max_wal_senders,
            max_prepared_xacts,
            max_locks_per_xact,
            track_commit_timestamp,
        })
    }

    /// The bytes that `decode_record` reads, padding included.
    pub fn encode_record(&self) -> [u8; PARAMETERS_SIZE] {
        let mut bytes = [0; PARAMETERS_SIZE];
        let numbers = [
            self.max_connections,
            self.max_worker_processes,
            self.max_wal_senders,
            self.max_prepared_xacts,
            self.max_locks_per_xact,
            self.wal_level,
        ];
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[24] = u8::from(self.wal_log_hints);
        bytes[25] = u8::from(self.track_commit_timestamp);
        bytes
    }
}

/// PostgreSQL's own defaults.
impl Default for ServerParameters {
    fn default() -> ServerParameters {
        ServerParameters {
            wal_level: 1,
            wal_log_hints: false,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            track_commit_timestamp: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_record_round_trips() {
        // Distinct bytes in every number: one that is read at a wrong place shows.
        let mut bytes: [u8; 28] = std::array::from_fn(|i| i as u8 + 1);
        bytes[24..].copy_from_slice(&[1, 0, 0, 0]);
        let parameters = ServerParameters::decode_record(&bytes).unwrap();
        assert!(parameters.wal_log_hints && !parameters.track_commit_timestamp);
        assert_eq!(parameters.wal_level, i32::from_le_bytes([21, 22, 23, 24]));
        assert_eq!(parameters.encode_record(), bytes);
        assert!(ServerParameters::decode_record(&bytes[..25]).is_err());
    }
}
