//! PostgreSQL's wire protocol over blocking TCP and Unix-domain connections: a server for commands
//! of our own, a small client, and a physical replication client. See README.md.

mod error;
mod frame;
pub mod limits;
mod linger;
mod socket;
mod sqlstate;
mod stop;
mod write;

pub mod client;
pub mod replication;
pub mod server;

pub use error::ConnectionError;
pub use sqlstate::SqlState;
pub use stop::StopSignal;
