//! Faults of disks, for tests: a `Recorder` attached to a folder numbers the operations below it, makes
//! some of them fail, and keeps a `Journal` of them, from which every state that a crash may leave is
//! built again in another folder. Only in builds with debug assertions.
//!
//! What a crash leaves follows the model of "All File Systems Are Not Created Equal" (Pillai and others,
//! OSDI 2014): content is durable once its file has been synced, names once their folder has been, and of
//! the rest any part may be there.

mod content;
mod journal;
mod recorder;
mod states;

pub use journal::{Journal, Tree};
pub use recorder::{Attached, Fault, Recorder};
pub use states::CrashState;

pub(crate) use journal::FileId;

#[cfg(test)]
mod tests;
