//! Who may write a timeline: one compute at a time, its *writer*.
//!
//! The WAL of an earlier writer would decode without a fault, for it continues the same records; so
//! who a server is must be known before anything is taken from it. The page server is where that is
//! decided, since what it has received is the history. The role is given by `Followers::claim`, under
//! the lock that also starts and ends receivers.
//!
//! `fact` is what is remembered of a timeline's writer, `role` the present fact with its file, and
//! `registry` has the roles of all timelines.

mod fact;
mod registry;
mod role;

pub use fact::WriterFact;
pub use registry::Writers;
pub use role::WriterRole;
