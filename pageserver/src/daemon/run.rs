//! The daemon's life: everything is found and locked before anything is served, and the pidfile
//! comes last; the end goes the same way back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use pageserver_client::protocol::WINDOWS_PARAMETER;
use postgres_wire::StopSignal;
use postgres_wire::server::{ListenAddress, Listener, ServerOptions, serve};
use slog::{Logger, error, info, warn};
use walredo_pool::WalRedoConfig;

use super::{AddressFile, PidFile, RepositoryLock, StopSignals, raise_open_files, unix_socket_dir};
use crate::ahead::Ahead;
use crate::collector::Collector;
use crate::config::Config;
use crate::error_text::with_causes;
use crate::expiry::Expiry;
use crate::page_maker::PageMaker;
use crate::page_service::PageService;
use crate::repository::Repository;
use crate::wal::followers::Followers;

/// Names the folder of the redo module, over the usual places.
const BIN_DIR_VARIABLE: &str = "ZENITH_BIN_DIR";
/// Names the folder of PostgreSQL's programs when `zenith.toml` does not.
const PG_BIN_VARIABLE: &str = "ZENITH_PG_BIN";
const PG_BIN_DEBIAN: &str = "/usr/lib/postgresql/15/bin";
const WALREDO_MODULE: &str = "zenith_walredo.so";
const REDO_TIMEOUT: Duration = Duration::from_secs(60);
/// What clients are told when they connect: what this server knows of.
const PARAMETERS: &[(&str, &str)] = &[(WINDOWS_PARAMETER, "on")];
/// Clients on this machine connect as whatever account they run, the files are guarded by the
/// folder's permissions.
const SOCKET_MODE: u32 = 0o777;

/// Serves the repository at `repo` until a signal ends it.
///
/// # Errors
/// Whatever keeps it from serving, in one line.
pub fn run(repo: &Path, config: &Config, log: &Logger) -> anyhow::Result<()> {
    let mut signals = StopSignals::install().context("cannot catch signals")?;
    let repo = repo.canonicalize().with_context(|| format!("no repository {}", repo.display()))?;
    for key in &config.unknown_keys {
        warn!(log, "zenith.toml has the key \"{}\", which means nothing here", key);
    }
    let lock = RepositoryLock::acquire(&repo)?;
    let open_files = raise_open_files();

    // Bound early: a port in use should cost nobody the time of loading anything.
    let mut listener = Listener::bind(&[ListenAddress::Tcp(config.listen)])?;
    let Some(&tcp) = listener.tcp_addresses().first() else { bail!("no TCP address is bound") };
    let socket_dir =
        unix_socket_dir(&repo).context("cannot make the folder for the Unix socket")?;
    let socket = socket_dir.join(format!(".s.PGSQL.{}", tcp.port()));
    listener.add(&ListenAddress::Unix { path: socket, mode: SOCKET_MODE })?;

    let maker = PageMaker::new(config.cache_bytes, redo_config(&repo, config)?, log.clone());
    let mut layers = config.layers;
    // The rest is for connections, and for what is written.
    if let Ok(quarter) = usize::try_from(open_files / 4) {
        layers.open_files_max = layers.open_files_max.min(quarter);
    }
    let repository = Repository::open(&repo, &config.default_branch, maker.clone(), layers, log)?;
    repository.unload_in_background(config.unload);
    let followers = Arc::new(Followers::new(repository.clone(), &repo, log));
    warm_up(&repository, log);
    get_to_know(&repository, &followers, log);
    repository.detach_in_background();
    let grace = config.expiry_grace;
    let expiry = Arc::new(Expiry::start(repository.clone(), followers.clone(), grace, log));
    let collector = Arc::new(Collector::start(repository.clone(), config.collect_every, log));
    let ahead = Ahead::start(maker, &config.ahead, log);
    let service = Arc::new(PageService::new(
        repository.clone(),
        followers.clone(),
        expiry.clone(),
        collector.clone(),
        config.lsn_timeout,
        log,
    ));

    let stop = StopSignal::new().context("cannot make a stop signal")?;
    let mut options = ServerOptions::default();
    options.connection.parameters = PARAMETERS;
    thread::scope(|scope| -> anyhow::Result<()> {
        let serving =
            thread::Builder::new().name("listener".to_owned()).spawn_scoped(scope, || {
                serve(&listener, &options, &stop, log, |_| service.connection());
            });
        let serving = serving.context("cannot start a thread")?;
        // Whoever sees these files may connect: the sockets have been listening for a while.
        let served = AddressFile::create(&repo, &socket_dir, tcp)
            .context("cannot write the address file")
            .and_then(|file| {
                Ok((file, PidFile::create(&repo).context("cannot write the pidfile")?))
            });
        if served.is_ok() {
            info!(log, "serving"; "repository" => %repo.display(), "tcp" => %tcp,
                "unix" => %socket_dir.display(), "pid" => std::process::id(),
                "open_files_max" => open_files);
            let signal = signals.wait();
            info!(log, "shutting down"; "signal" => signal);
        }
        stop.fire();
        ahead.stop();
        expiry.stop();
        collector.stop();
        followers.shut_down();
        repository.shut_down();
        if serving.join().is_err() {
            error!(log, "the listening thread has panicked");
        }
        served.map(drop)
    })?;
    drop(lock);
    info!(log, "stopped");
    Ok(())
}

/// Loads the default branch and starts the redo processes in the background, so that the first
/// client need not wait for either.
fn warm_up(repository: &Arc<Repository>, log: &Logger) {
    let repository = repository.clone();
    let thread_log = log.clone();
    let work = move || {
        let warm = || -> anyhow::Result<()> {
            let name = repository.default_branch().parse()?;
            let timeline = repository.timeline(repository.branch(&name)?.timeline)?;
            repository.maker().start_pool(&timeline.cluster().control_file_bytes)?;
            Ok(())
        };
        if let Err(error) = warm() {
            let text = with_causes(error.as_ref());
            warn!(thread_log, "the default branch is not ready yet: {}", text);
        }
    };
    if let Err(error) = thread::Builder::new().name("warm-up".to_owned()).spawn(work) {
        warn!(log, "cannot start a thread"; "error" => %error);
    }
}

/// Goes on following servers, and reads all branches, in the background: with many of them that takes a
/// while, and nobody who asks for one of them needs it.
fn get_to_know(repository: &Arc<Repository>, followers: &Arc<Followers>, log: &Logger) {
    let (repository, followers) = (repository.clone(), followers.clone());
    let thread_log = log.clone();
    let work = move || {
        // Each is tried again by the first who needs it, and fails for that one.
        if let Err(error) = followers.resume() {
            error!(thread_log, "cannot go on following: {}", with_causes(&error));
        }
        if let Err(error) = repository.know_all() {
            error!(thread_log, "the branches cannot be read: {}", with_causes(&error));
        }
    };
    if let Err(error) = thread::Builder::new().name("branches".to_owned()).spawn(work) {
        warn!(log, "cannot start a thread"; "error" => %error);
    }
}

fn redo_config(repo: &Path, config: &Config) -> anyhow::Result<WalRedoConfig> {
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    Ok(WalRedoConfig {
        postgres_bin_dir: postgres_bin_dir(config)?,
        module_path: redo_module(repo)?,
        libraries: config.redo.libraries.clone(),
        work_dir: repo.join("walredo"),
        // Taken from the first cluster that needs redo.
        control_file: Vec::new(),
        processes: config.redo.processes.unwrap_or(processors),
        processes_min: config.redo.processes_min,
        idle_after: config.redo.idle_after,
        // This process has given up root already.
        account: None,
        request_timeout: REDO_TIMEOUT,
    })
}

fn postgres_bin_dir(config: &Config) -> anyhow::Result<PathBuf> {
    let named = || std::env::var_os(PG_BIN_VARIABLE).map(PathBuf::from);
    let usual = || Some(PathBuf::from(PG_BIN_DEBIAN)).filter(|dir| dir.exists());
    let asked = || {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| PathBuf::from(text.trim()))
    };
    let configured = config.pg_bin_dir.clone();
    let dir = configured.or_else(named).or_else(usual).or_else(asked).context(
        "PostgreSQL 15 is not installed where it could be found: set pg_bin_dir in zenith.toml",
    )?;
    let postgres = dir.join("postgres");
    if !postgres.is_file() {
        bail!(
            "{} does not exist: install PostgreSQL 15 or set pg_bin_dir in zenith.toml",
            postgres.display()
        );
    }
    Ok(dir)
}

/// The redo module: where the control plane has put it, or beside this program.
fn redo_module(repo: &Path) -> anyhow::Result<PathBuf> {
    let named = std::env::var_os(BIN_DIR_VARIABLE).map(PathBuf::from);
    let executable = std::env::current_exe().ok();
    // Cargo puts the programs of tests one folder deeper.
    let beside = executable.iter().flat_map(|path| path.ancestors().skip(1).take(2));
    let dirs: Vec<PathBuf> =
        std::iter::once(repo.join("lib")).chain(named).chain(beside.map(Path::to_owned)).collect();
    let found = dirs.iter().map(|dir| dir.join(WALREDO_MODULE)).find(|path| path.is_file());
    found.with_context(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        format!("{WALREDO_MODULE} is in none of {}: build it with `make build`", dirs.join(", "))
    })
}
