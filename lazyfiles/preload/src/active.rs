//! Whether this process is a PostgreSQL server process of our compute, decided when the library is
//! loaded, and what such a process needs to know.

use std::collections::HashMap;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard};

use lazyfiles_core::base::BaseLsn;
use lazyfiles_core::data_directory::DataDirectory;
use lazyfiles_core::lazy_file::Process;
use lazyfiles_core::presence::BootId;
use lazyfiles_core::remote::RemotePages;
use lazyfiles_core::report;
use lazyfiles_core::settings::{self, Settings};

use postgres_formats::control_file::ControlFile;

use crate::inside::Inside;
use crate::postgres;

/// The programs that read a data directory's relations. In all others the library does nothing: it
/// is inherited by way of `pg_ctl` or a shell, for example.
const PROGRAMS: [&str; 2] = ["postgres", "pg_checksums"];

/// This library's file name, by which it is found in `LD_PRELOAD`.
const LIBRARY: &str = "liblazyfiles.so";

const LD_PRELOAD: &str = "LD_PRELOAD";

/// What the calls of an active process need.
pub(crate) struct Active {
    pub(crate) data: DataDirectory,
    pub(crate) boot: BootId,
    pub(crate) presence: std::path::PathBuf,
    /// The process that loaded the library: the postmaster.
    loader: u32,
    source: Mutex<RemotePages>,
}

static ACTIVE: AtomicPtr<Active> = AtomicPtr::new(null_mut());

/// `None` in a process that is not ours, or not yet.
pub(crate) fn get() -> Option<&'static Active> {
    // SAFETY: the pointer is set once, from a box that is never freed.
    unsafe { ACTIVE.load(Ordering::Acquire).as_ref() }
}

impl Active {
    /// Does `work` with what fetching needs.
    pub(crate) fn with_process<T>(&self, work: impl FnOnce(&mut Process<'_>) -> T) -> T {
        let mut source: MutexGuard<'_, RemotePages> =
            self.source.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        source.forget_parents_connection();
        work(&mut Process {
            durability: postgres::durability(),
            in_recovery: postgres::is_in_recovery(),
            source: &mut *source,
        })
    }
}

/// Ends the process: serving a compute's files without being able to fetch would be serving zeros.
pub(crate) fn die(reason: &str) -> ! {
    report::line(reason);
    // SAFETY: ends the process at once, without running anything of it.
    unsafe { libc::_exit(1) }
}

#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

#[used]
#[unsafe(link_section = ".fini_array")]
static ON_EXIT: extern "C" fn() = on_exit;

extern "C" fn on_load() {
    let Some(inside) = Inside::enter() else { return };
    let loaded = inside.run(|| {
        let program = std::fs::read_link("/proc/self/exe");
        let program = program.as_deref().ok().and_then(Path::file_name);
        if program.is_some_and(|name| PROGRAMS.iter().any(|ours| name == *ours)) {
            activate();
        }
        Ok(())
    });
    if loaded.is_err() {
        die("liblazyfiles.so could not start");
    }
}

fn activate() {
    // PostgreSQL overwrites its environment for process titles, so what is needed is copied now.
    let variables: HashMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let refuse = |reason: &dyn std::fmt::Display| -> ! {
        die(&format!(
            "{LIBRARY} is preloaded, but the server cannot run on lazily filled files: {reason}"
        ))
    };
    let settings = Settings::from_variables(&variables).unwrap_or_else(|error| refuse(&error));
    let data = DataDirectory::new(&settings.pgdata, &settings.presence)
        .unwrap_or_else(|error| refuse(&format!("{}: {error}", settings.pgdata.display())));
    let boot = BootId::current().unwrap_or_else(|error| refuse(&format!("boot id: {error}")));
    if let Err(error) = std::fs::read_dir(&settings.presence) {
        refuse(&format!("{}: {error}", settings.presence.display()));
    }
    let base = BaseLsn::open(&settings.base).unwrap_or_else(|error| refuse(&report::chain(&error)));
    let checksums = has_checksums(&settings.pgdata).unwrap_or_else(|error| refuse(&error));
    postgres::look_up_variables();
    hide_from_children(variables.get(LD_PRELOAD));
    let active = Active {
        data,
        boot,
        presence: settings.presence.clone(),
        loader: std::process::id(),
        source: Mutex::new(RemotePages::new(&settings, base, checksums, postgres::is_canceled)),
    };
    ACTIVE.store(Box::into_raw(Box::new(active)), Ordering::Release);
}

/// Whether the pages of the cluster at `pgdata` carry checksums. They are checked before a page is
/// stored: PostgreSQL would refuse a bad one at every read to come.
fn has_checksums(pgdata: &Path) -> Result<bool, String> {
    let path = pgdata.join("global/pg_control");
    let describe = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = std::fs::read(&path).map_err(|error| describe(&error))?;
    let control = ControlFile::decode(&bytes).map_err(|error| describe(&error))?;
    Ok(control.has_data_checksums())
}

/// Takes the library and its settings out of the environment: the programs that a server starts
/// (`COPY PROGRAM`, `archive_command`) are not servers.
fn hide_from_children(preload: Option<&String>) {
    let others: Vec<&str> = preload
        .map(String::as_str)
        .unwrap_or_default()
        .split([':', ' '])
        .filter(|library| !library.is_empty() && !library.ends_with(LIBRARY))
        .collect();
    // SAFETY: constructors run before the program's first thread.
    unsafe {
        if others.is_empty() {
            std::env::remove_var(LD_PRELOAD);
        } else {
            std::env::set_var(LD_PRELOAD, others.join(":"));
        }
        for name in settings::ALL {
            std::env::remove_var(name);
        }
    }
}

extern "C" fn on_exit() {
    let (Some(active), Some(inside)) = (get(), Inside::enter()) else { return };
    // A server without fsync relies on the operating system to write everything at its leisure;
    // so must the maps (R6 in SAFETY.md). Those set while fsync was still on are caught up here.
    if active.loader == std::process::id() && !postgres::durability().fsync {
        let _ = inside.run(|| {
            lazyfiles_core::all_maps::equalize_without_sync(&active.presence, active.boot);
            Ok(())
        });
    }
}
