//! A physical replication client: what a standby's WAL receiver speaks with a WAL sender.
//!
//! Formats and commands: PostgreSQL documentation, "Streaming Replication Protocol".

mod client;
mod error;
mod message;
mod stream;

pub use client::{IdentifySystem, ReplicationClient, SlotState};
pub use error::ReplicationError;
pub use message::{PgTimestamp, ReplicationMessage};
pub use stream::{ReplicationStream, StreamEnd};
