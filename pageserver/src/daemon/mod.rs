//! What makes the page server a daemon: who it runs as, that it is the only one, where it can be
//! found, what it logs and how it ends. Nothing in here knows pages.

mod address;
mod lock;
mod logging;
mod pidfile;
mod privileges;
mod signals;

pub use address::{ADDRESS_FILE_NAME, AddressFile, unix_socket_dir};
pub use lock::{LOCK_FILE_NAME, LockError, RepositoryLock};
pub use logging::{LogLevel, Logging};
pub use pidfile::{PID_FILE_NAME, PidFile};
pub use privileges::{Account, PrivilegeError, switch_account};
pub use signals::StopSignals;
