//! The page server's program: `init` loads a cluster into a repository, `run` serves it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use pageserver::config::{Config, parse_address};
use pageserver::daemon::{self, Account, LogLevel, Logging, RepositoryLock};
use pageserver::error_text::with_causes;
use pageserver::materialize::{MaterializeError, RawWal, materialize, write_raw_wal};
use pageserver::repository::Repository;
use pageserver::scrub::{Problem, Scrubbed, scrub};
use pageserver_client::BranchName;
use postgres_formats::{Lsn, TimelineId};

/// The storage of a Zenith repository: receives WAL, keeps every version of every page, serves them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Load a cleanly stopped data directory as the repository's first branch.
    Init {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        repo: PathBuf,
        /// The data directory, of PostgreSQL 15.
        #[arg(long, value_name = "DIR")]
        pgdata: PathBuf,
        /// As root: the account to run as. [default: the owner of the repository]
        #[arg(long, value_name = "UID:GID")]
        run_as: Option<Account>,
    },
    /// Serve a repository until SIGTERM or SIGINT. Logs to stderr.
    Run {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        repo: PathBuf,
        /// The TCP address to serve on. [default: as in zenith.toml]
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
        listen: Option<SocketAddr>,
        /// As root: the account to run as. [default: the owner of the repository]
        #[arg(long, value_name = "UID:GID")]
        run_as: Option<Account>,
        /// The least important messages to log: error, warning, info or debug.
        #[arg(long, value_name = "LEVEL", env = "ZENITH_LOG_LEVEL", default_value = "info")]
        log_level: LogLevel,
    },
    /// Make the data directory of a crashed stock server whose WAL ends at an LSN, out of nothing
    /// but the base image and the raw WAL. Prints where the WAL ends, where its last record begins, whether
    /// that server tracked commit timestamps (- if the WAL does not say), and - or, with --since, from which
    /// record on there is nothing but WAL. May run beside the daemon.
    Materialize {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        repo: PathBuf,
        /// Whose history.
        #[arg(long, value_name = "ID")]
        timeline: TimelineId,
        /// Up to where.
        #[arg(long)]
        lsn: Lsn,
        /// If some of the WAL was removed: begin with a record at or behind this LSN, and write nothing
        /// but WAL.
        #[arg(long, value_name = "LSN")]
        since: Option<Lsn>,
        /// The data directory: an empty folder.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// As root: the account to run as. [default: the owner of the repository]
        #[arg(long, value_name = "UID:GID")]
        run_as: Option<Account>,
    },
    /// Read every file of a branch and of its ancestors. Prints how many files and bytes that were, then
    /// a line for each that is damaged. Needs no daemon, and may run beside one.
    Scrub {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        repo: PathBuf,
        /// The branch.
        #[arg(long, value_name = "NAME")]
        branch: BranchName,
        /// As root: the account to run as. [default: the owner of the repository]
        #[arg(long, value_name = "UID:GID")]
        run_as: Option<Account>,
    },
    /// Write the raw WAL of a timeline and its ancestors up to an LSN to stdout, behind a line with
    /// where it begins, the size of a segment and the cluster's number. May run beside the daemon.
    Wal {
        /// The repository.
        #[arg(long, value_name = "DIR")]
        repo: PathBuf,
        /// Whose history.
        #[arg(long, value_name = "ID")]
        timeline: TimelineId,
        /// Begin with the first record of the segment that this LSN is in. [default: the first there is]
        #[arg(long, value_name = "LSN")]
        from: Option<Lsn>,
        /// Up to where.
        #[arg(long)]
        lsn: Lsn,
        /// As root: the account to run as. [default: the owner of the repository]
        #[arg(long, value_name = "UID:GID")]
        run_as: Option<Account>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pageserver: error: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<()> {
    daemon::keep_files_private();
    match task {
        Task::Init { repo, pgdata, run_as } => {
            let config = Config::load(&repo)?;
            daemon::switch_account(run_as, &repo)?;
            init(&repo, &config, &pgdata)
        }
        Task::Run { repo, listen, run_as, log_level } => {
            let mut config = Config::load(&repo)?;
            config.listen = listen.unwrap_or(config.listen);
            // Before any other thread is started, the logging one included.
            daemon::switch_account(run_as, &repo)?;
            let logging = Logging::to_stderr(log_level);
            daemon::run(&repo, &config, logging.logger())
        }
        Task::Materialize { repo, timeline, lsn, since, into, run_as } => {
            // Refuses a repository of another format.
            Config::load(&repo)?;
            daemon::switch_account(run_as, &repo)?;
            let made = materialize(&repo, timeline, lsn, since, &into).map_err(|error| {
                // Where there is nothing to be made the folder is not what is wrong.
                let refused = matches!(error, MaterializeError::OutOfReach { .. });
                let error = anyhow::Error::new(error);
                match refused {
                    true => error,
                    false => error.context(format!("cannot make {}", into.display())),
                }
            })?;
            let commit_ts = match made.tracks_commit_timestamps {
                Some(true) => "on",
                Some(false) => "off",
                None => "-",
            };
            let begins = made.begins.map_or("-".to_owned(), |lsn| lsn.to_string());
            println!("{} {} {commit_ts} {begins}", made.end, made.last_record);
            Ok(())
        }
        Task::Scrub { repo, branch, run_as } => {
            Config::load(&repo)?;
            daemon::switch_account(run_as, &repo)?;
            let Scrubbed { files, bytes, problems } = scrub(&repo, &branch);
            println!("{files} {bytes}");
            for Problem { path, what } in problems {
                println!("{}\t{what}", path.display());
            }
            Ok(())
        }
        Task::Wal { repo, timeline, from, lsn, run_as } => {
            Config::load(&repo)?;
            daemon::switch_account(run_as, &repo)?;
            let mut out = std::io::BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
            write_raw_wal(&repo, timeline, from, lsn, &mut out, |out, wal| {
                let RawWal { start, segment_size, system_id } = wal;
                writeln!(out, "{start} {} {}", segment_size.bytes(), system_id.0)
            })?;
            Ok(())
        }
    }
}

fn init(repo: &Path, config: &Config, pgdata: &Path) -> anyhow::Result<()> {
    let _lock = RepositoryLock::acquire(repo)?;
    let branch = config.default_branch.parse().context("default_branch in zenith.toml")?;
    let timeline = Repository::init_from_pgdata(repo, pgdata, &branch)
        .with_context(|| format!("cannot load {}", pgdata.display()))?;
    println!("{timeline}");
    Ok(())
}
