//! What makes the page server a daemon: who it runs as, that it is the only one, where it can be
//! found, what it logs and how it ends. Nothing in here knows pages.

mod address;
mod limits;
mod lock;
mod logging;
mod pidfile;
mod privileges;
mod run;
mod signals;

pub use address::{ADDRESS_FILE_NAME, AddressFile, unix_socket_dir};
pub use limits::{keep_files_private, raise_open_files};
pub use lock::{LOCK_FILE_NAME, LockError, RepositoryLock};
pub use logging::{LogLevel, Logging};
pub use pidfile::{PID_FILE_NAME, PidFile};
pub use privileges::{Account, PrivilegeError, switch_account};
pub use run::run;
pub use signals::StopSignals;
