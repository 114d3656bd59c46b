//! Variables of the PostgreSQL server around us.
//!
//! The `postgres` executable exports them. They are read, never written, and only what follows
//! from their being absent (as in other programs) or out of date must hold: no wrong page.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use lazyfiles_core::lazy_file::Durability;
use libc::epoll_event;
use pageserver_client::STANDBY_NAME;

/// One variable's address, null until looked up or if there is no such variable.
struct Variable {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Variable {
    const fn new(name: &'static CStr) -> Variable {
        Variable { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn look_up(&self) {
        // SAFETY: the name ends with a zero byte, and RTLD_DEFAULT needs no opening.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, self.name.as_ptr()) };
        self.address.store(address, Ordering::Relaxed);
    }

    /// The variable read as a `T`, which must be its type in PostgreSQL.
    fn read<T: Copy>(&self) -> Option<T> {
        let address = self.address.load(Ordering::Relaxed).cast::<T>();
        // SAFETY: a global variable of the executable is there as long as the process, and aligned
        // as its type. A signal handler may change it, so the read is volatile.
        (!address.is_null()).then(|| unsafe { address.read_volatile() })
    }

    /// A C `bool`, read as the byte that it is.
    fn is_true(&self, when_absent: bool) -> bool {
        self.read::<u8>().map_or(when_absent, |value| value != 0)
    }

    /// Whether it is a C string that says this.
    fn is(&self, expected: &str) -> bool {
        let text = self.read::<*const c_char>().filter(|text| !text.is_null());
        // SAFETY: settings are strings that end with a zero byte. The server frees one when the setting
        // changes, which this same thread does, and not while it looks at it here.
        text.is_some_and(|text| unsafe { CStr::from_ptr(text) }.to_bytes() == expected.as_bytes())
    }

    fn is_not_zero(&self) -> bool {
        self.read::<c_int>().is_some_and(|value| value != 0)
    }
}

/// `bool`, the setting `fsync`.
static ENABLE_FSYNC: Variable = Variable::new(c"enableFsync");
/// `bool`, the setting of this name.
static DATA_SYNC_RETRY: Variable = Variable::new(c"data_sync_retry");
/// `volatile sig_atomic_t`: the query is to be canceled.
static QUERY_CANCEL_PENDING: Variable = Variable::new(c"QueryCancelPending");
/// `volatile sig_atomic_t`: the process is to end.
static PROC_DIE_PENDING: Variable = Variable::new(c"ProcDiePending");
/// `volatile uint32`: in a critical section any error takes the whole server down.
static CRIT_SECTION_COUNT: Variable = Variable::new(c"CritSectionCount");
/// `bool`: this process redoes WAL (`xlogutils.h`).
static IN_RECOVERY: Variable = Variable::new(c"InRecovery");

/// `bool`: this process is a WAL sender (`walsender.h`).
static AM_WALSENDER: Variable = Variable::new(c"am_walsender");
/// `char *`: how the client calls itself, a setting.
static CLIENT_NAME: Variable = Variable::new(c"application_name");
/// `char *`, the setting `synchronous_standby_names`.
static SYNCHRONOUS_STANDBYS: Variable = Variable::new(c"SyncRepStandbyNames");

/// Finds the variables; to be called once, when the library is loaded.
pub(crate) fn look_up_variables() {
    for variable in [
        &ENABLE_FSYNC,
        &DATA_SYNC_RETRY,
        &QUERY_CANCEL_PENDING,
        &PROC_DIE_PENDING,
        &CRIT_SECTION_COUNT,
        &IN_RECOVERY,
        &AM_WALSENDER,
        &CLIENT_NAME,
        &SYNCHRONOUS_STANDBYS,
    ] {
        variable.look_up();
    }
}

/// What the server's settings say about durability.
pub(crate) fn durability() -> Durability {
    Durability {
        fsync: ENABLE_FSYNC.is_true(true),
        retries_failed_sync: DATA_SYNC_RETRY.is_true(false),
    }
}

/// Whether this process redoes WAL after a crash.
pub(crate) fn is_in_recovery() -> bool {
    IN_RECOVERY.is_true(false)
}

/// Whether this process sends WAL to the page server, and no commit waits for that.
pub(crate) fn sends_wal_that_nobody_waits_for() -> bool {
    AM_WALSENDER.is_true(false) && CLIENT_NAME.is(STANDBY_NAME) && SYNCHRONOUS_STANDBYS.is("")
}

/// The beginning of a `WaitEvent` (`latch.h`).
#[repr(C)]
struct WaitEvent {
    _pos: c_int,
    /// What is waited for.
    events: u32,
}

/// `latch.h`.
const WL_LATCH_SET: u32 = 1 << 0;

/// Whether that is what the server's `epoll_wait` (`latch.c`) gives when its latch was set.
pub(crate) fn is_latch_set(event: &epoll_event) -> bool {
    let waited_for = event.u64 as *const WaitEvent;
    // SAFETY: the server's only waits by epoll are those of `WaitEventSetWaitBlock`, which has put the
    // address of one of the set's `WaitEvent`s there; the set lives as long as the wait.
    let waited_for = unsafe { waited_for.as_ref() };
    event.events == libc::EPOLLIN as u32
        && waited_for.is_some_and(|waited_for| waited_for.events & WL_LATCH_SET != 0)
}

/// Whether this process has been asked to stop what it does, and may.
pub(crate) fn is_canceled() -> bool {
    (QUERY_CANCEL_PENDING.is_not_zero() || PROC_DIE_PENDING.is_not_zero())
        && !CRIT_SECTION_COUNT.is_not_zero()
}
