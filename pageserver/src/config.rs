//! `zenith.toml`: what a repository says about itself, read once when the page server starts.
//!
//! The file is written by whoever makes the repository (the control plane) and by users; the page
//! server only reads it. Keys that are absent have the defaults below; keys that are not known are
//! reported by [`Config::unknown_keys`] so that a misspelt one does not pass in silence.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::ahead::AheadOptions;
use crate::layer::freezer::LayerOptions;
use crate::repository::Retention;
use crate::repository::UnloadOptions;

/// Name of the file within the repository.
pub const CONFIG_FILE_NAME: &str = "zenith.toml";
/// The newest `format_version` that this program understands.
pub const FORMAT_VERSION: u32 = 1;

const CACHE_BYTES_DEFAULT: u64 = 256 << 20;
const CACHE_BYTES_MIN: u64 = 1 << 20;
const STRETCH_BYTES_MIN: u64 = 64 << 10;
/// How often is looked for history that nobody needs.
const COLLECT_SECONDS_DEFAULT: u64 = 60;
const EXPIRY_GRACE_DEFAULT: Duration = Duration::from_secs(60);
const LSN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const LSN_TIMEOUT_SECONDS_MAX: u64 = 24 * 60 * 60;
const REDO_PROCESSES_MAX: usize = 256;
const REDO_PROCESSES_MIN_DEFAULT: usize = 1;
const REDO_IDLE_DEFAULT: Duration = Duration::from_secs(60);

/// The settings of a repository's page server.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where PostgreSQL's programs are; `None`: found as every part of Zenith finds them.
    pub pg_bin_dir: Option<PathBuf>,
    /// The TCP address to serve on. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The branch that commands mean when none is named.
    pub default_branch: String,
    /// The redo processes.
    pub redo: RedoOptions,
    /// What is made ahead of demand.
    pub ahead: AheadOptions,
    /// Bound of the page cache, in bytes.
    pub cache_bytes: u64,
    /// How history is put into layers.
    pub layers: LayerOptions,
    /// Which timelines that nobody uses stay in memory.
    pub unload: UnloadOptions,
    /// How long a branch that has expired must have been used by nobody before it is deleted.
    pub expiry_grace: Duration,
    /// How often history is removed that nobody needs any more; zero: only when somebody says so.
    pub collect_every: Duration,
    /// How long a request waits for WAL that has not been received yet.
    pub lsn_timeout: Duration,
    /// Top-level keys of the file that mean nothing to this program.
    pub unknown_keys: Vec<String>,
}

/// Settings of the redo processes.
#[derive(Clone, Debug, PartialEq)]
pub struct RedoOptions {
    /// How many there are at most; `None`: as many as there are processors.
    pub processes: Option<usize>,
    /// How many are kept however little there is to do.
    pub processes_min: usize,
    /// How long one has nothing to do before it is ended.
    pub idle_after: Duration,
    /// Libraries of extensions that write WAL of their own; the processes load them.
    pub libraries: Vec<String>,
}

/// Why `zenith.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file, so the folder is not a repository.
    #[error("{} is not a Zenith repository: it has no {CONFIG_FILE_NAME}", .0.display())]
    NotARepository(PathBuf),
    /// The file exists but cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not TOML or a value has the wrong type.
    #[error("{}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, in one line.
        message: String,
    },
    /// The repository was made by a newer Zenith.
    #[error(
        "{} has format_version {found}, but this program knows versions up to {FORMAT_VERSION}: \
         use the newer Zenith that made the repository",
        .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version it states.
        found: u32,
    },
    /// A value is out of its range.
    #[error("{}: {key} {problem}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "format_version")]
    _format_version: u32,
    pg_bin_dir: Option<PathBuf>,
    listen: Option<String>,
    default_branch: Option<String>,
    #[serde(default)]
    walredo: WalRedoTable,
    #[serde(default)]
    cache: CacheTable,
    #[serde(default)]
    layers: LayersTable,
    #[serde(default)]
    retention: RetentionTable,
    #[serde(default)]
    timelines: TimelinesTable,
    #[serde(default)]
    wal: WalTable,
    #[serde(default)]
    branches: BranchesTable,
    lsn_timeout_seconds: Option<u64>,
    #[serde(flatten)]
    unknown: toml::Table,
}

#[derive(Deserialize, Default)]
struct WalRedoTable {
    processes: Option<usize>,
    processes_min: Option<usize>,
    idle_seconds: Option<u64>,
    ahead_percent: Option<u32>,
    ahead_bytes: Option<u64>,
    #[serde(default)]
    libraries: Vec<String>,
}

#[derive(Deserialize, Default)]
struct LayersTable {
    stretch_bytes: Option<u64>,
    cache_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    age_seconds: Option<u64>,
    image_percent: Option<u32>,
    image_piece_bytes: Option<u64>,
    chain_max: Option<u32>,
    reserve_bytes: Option<u64>,
}

#[derive(Deserialize, Default)]
struct TimelinesTable {
    unload_after_seconds: Option<u64>,
    loaded_max: Option<usize>,
}

#[derive(Deserialize, Default)]
struct WalTable {
    keep: Option<Keep>,
}

/// How much WAL is kept that is in layers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Keep {
    All(bool),
    Bytes(u64),
}

#[derive(Deserialize, Default)]
struct BranchesTable {
    expiry_grace_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
struct RetentionTable {
    window_bytes: Option<u64>,
    window_seconds: Option<u64>,
    check_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
struct CacheTable {
    bytes: Option<u64>,
}

impl Config {
    /// Reads the `zenith.toml` of the repository at `repo_dir`.
    pub fn load(repo_dir: &Path) -> Result<Config, ConfigError> {
        let path = repo_dir.join(CONFIG_FILE_NAME);
        match fs::read_to_string(&path) {
            Ok(text) => Config::parse(&text, &path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(ConfigError::NotARepository(repo_dir.to_owned()))
            }
            Err(source) => Err(ConfigError::Io { path, source }),
        }
    }

    /// Reads the text of a `zenith.toml`; `path` only serves error messages.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let syntax = |e: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: one_line(&e),
        };
        let value =
            |key, problem: String| ConfigError::Value { path: path.to_owned(), key, problem };

        // The version comes first and alone: the other keys of a newer format may look different.
        let found = toml::from_str::<VersionOnly>(text).map_err(syntax)?.format_version;
        if found > FORMAT_VERSION {
            return Err(ConfigError::NewerFormat { path: path.to_owned(), found });
        }
        if found == 0 {
            return Err(value("format_version", "is 0: there is no such version".to_owned()));
        }

        let file: File = toml::from_str(text).map_err(syntax)?;
        let listen = match &file.listen {
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Some(text) => parse_address(text).map_err(|problem| value("listen", problem))?,
        };
        if let Some(n) = file.walredo.processes
            && !(1..=REDO_PROCESSES_MAX).contains(&n)
        {
            let problem = format!("is {n}: expected 1 to {REDO_PROCESSES_MAX}");
            return Err(value("walredo.processes", problem));
        }
        if let Some(n) = file.walredo.processes_min
            && !(1..=REDO_PROCESSES_MAX).contains(&n)
        {
            let problem = format!("is {n}: expected 1 to {REDO_PROCESSES_MAX}");
            return Err(value("walredo.processes_min", problem));
        }
        let ahead = AheadOptions::default();
        let ahead = AheadOptions {
            percent: file.walredo.ahead_percent.unwrap_or(ahead.percent),
            bytes: file.walredo.ahead_bytes.unwrap_or(ahead.bytes),
        };
        if ahead.percent > 100 {
            let problem = format!("is {}: expected 0 to 100", ahead.percent);
            return Err(value("walredo.ahead_percent", problem));
        }
        let is_bad = |name: &&String| name.is_empty() || name.contains(['"', '\\', '\n', '\0']);
        if let Some(name) = file.walredo.libraries.iter().find(is_bad) {
            let problem = format!("has {name:?}: expected the name of a library");
            return Err(value("walredo.libraries", problem));
        }
        let cache_bytes = file.cache.bytes.unwrap_or(CACHE_BYTES_DEFAULT);
        if cache_bytes < CACHE_BYTES_MIN {
            let problem = format!("is {cache_bytes}: expected at least {CACHE_BYTES_MIN}");
            return Err(value("cache.bytes", problem));
        }
        let defaults = LayerOptions::default();
        let layers = LayerOptions {
            stretch_bytes: file.layers.stretch_bytes.unwrap_or(defaults.stretch_bytes),
            cache_bytes: file.layers.cache_bytes.unwrap_or(defaults.cache_bytes),
            keep_wal_bytes: match file.wal.keep {
                None => defaults.keep_wal_bytes,
                Some(Keep::All(true)) => None,
                Some(Keep::All(false)) => Some(0),
                Some(Keep::Bytes(bytes)) => Some(bytes),
            },
            keep_wal_bytes_min: defaults.keep_wal_bytes_min,
            memory_bytes: file.layers.memory_bytes.unwrap_or(defaults.memory_bytes),
            age_max: file.layers.age_seconds.map_or(defaults.age_max, Duration::from_secs),
            image_percent: file.layers.image_percent.unwrap_or(defaults.image_percent),
            image_piece_bytes: file.layers.image_piece_bytes.unwrap_or(defaults.image_piece_bytes),
            chain_max: file.layers.chain_max.unwrap_or(defaults.chain_max),
            reserve_bytes: file.layers.reserve_bytes.unwrap_or(defaults.reserve_bytes),
            open_files_max: defaults.open_files_max,
            in_background: defaults.in_background,
            retention: Retention {
                window_bytes: file.retention.window_bytes,
                window_seconds: file.retention.window_seconds,
            },
        };
        if layers.stretch_bytes < STRETCH_BYTES_MIN {
            let problem =
                format!("is {}: expected at least {STRETCH_BYTES_MIN}", layers.stretch_bytes);
            return Err(value("layers.stretch_bytes", problem));
        }
        let UnloadOptions { idle, loaded_max } = UnloadOptions::default();
        let unload = UnloadOptions {
            idle: file.timelines.unload_after_seconds.map_or(idle, Duration::from_secs),
            loaded_max: file.timelines.loaded_max.unwrap_or(loaded_max),
        };
        let lsn_timeout = match file.lsn_timeout_seconds {
            None => LSN_TIMEOUT_DEFAULT,
            Some(seconds @ 1..=LSN_TIMEOUT_SECONDS_MAX) => Duration::from_secs(seconds),
            Some(seconds) => {
                let problem = format!("is {seconds}: expected 1 to {LSN_TIMEOUT_SECONDS_MAX}");
                return Err(value("lsn_timeout_seconds", problem));
            }
        };
        Ok(Config {
            pg_bin_dir: file.pg_bin_dir,
            listen,
            default_branch: file.default_branch.unwrap_or_else(|| "main".to_owned()),
            redo: RedoOptions {
                processes: file.walredo.processes,
                processes_min: file.walredo.processes_min.unwrap_or(REDO_PROCESSES_MIN_DEFAULT),
                idle_after: file
                    .walredo
                    .idle_seconds
                    .map_or(REDO_IDLE_DEFAULT, Duration::from_secs),
                libraries: file.walredo.libraries,
            },
            ahead,
            cache_bytes,
            layers,
            unload,
            expiry_grace: file
                .branches
                .expiry_grace_seconds
                .map_or(EXPIRY_GRACE_DEFAULT, Duration::from_secs),
            collect_every: Duration::from_secs(
                file.retention.check_seconds.unwrap_or(COLLECT_SECONDS_DEFAULT),
            ),
            lsn_timeout,
            unknown_keys: file.unknown.keys().cloned().collect(),
        })
    }
}

/// Reads `ADDRESS:PORT`, with a text that says what is wrong for a person.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| format!("is \"{text}\": expected an address such as 127.0.0.1:6400"))
}

/// toml draws its errors over several lines; a log line and a terminal want one.
fn one_line(e: &toml::de::Error) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("zenith.toml"))
    }

    #[test]
    fn a_version_alone_gives_the_defaults() {
        let config = parse("format_version = 1").unwrap();
        assert_eq!(config.listen, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.default_branch, "main");
        assert_eq!(config.lsn_timeout, Duration::from_secs(30));
        assert_eq!((config.redo.processes, config.redo.processes_min), (None, 1));
        assert_eq!(config.redo.idle_after, Duration::from_secs(60));
        // Nothing but the last WAL that is in layers.
        assert_eq!(config.layers.keep_wal_bytes, Some(0));
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "format_version = 1\npg_bin_dir = \"/pg\"\nlisten = \"127.0.0.1:6400\"\n\
             default_branch = \"trunk\"\nlsn_timeout_seconds = 5\ncolour = \"red\"\n\
             [walredo]\nprocesses = 3\nprocesses_min = 2\nidle_seconds = 4\nahead_percent = 6\nahead_bytes = 5\n\
             libraries = [\"a\", \"/b c\"]\n[cache]\nbytes = 2097152\n\
             [layers]\nstretch_bytes = 100000\ncache_bytes = 0\nimage_percent = 30\nimage_piece_bytes = 9\nchain_max = 4\n\
             memory_bytes = 7\nage_seconds = 8\nreserve_bytes = 6\n[wal]\nkeep = 5\n\
             [retention]\nwindow_bytes = 7\nwindow_seconds = 8\ncheck_seconds = 9\n\
             [timelines]\nunload_after_seconds = 9\nloaded_max = 7\n\
             [branches]\nexpiry_grace_seconds = 7\n",
        )
        .unwrap();
        assert_eq!(
            config,
            Config {
                pg_bin_dir: Some("/pg".into()),
                listen: "127.0.0.1:6400".parse().unwrap(),
                default_branch: "trunk".into(),
                redo: RedoOptions {
                    processes: Some(3),
                    processes_min: 2,
                    idle_after: Duration::from_secs(4),
                    libraries: vec!["a".into(), "/b c".into()],
                },
                ahead: AheadOptions { percent: 6, bytes: 5 },
                cache_bytes: 2 << 20,
                layers: LayerOptions {
                    stretch_bytes: 100_000,
                    cache_bytes: 0,
                    keep_wal_bytes: Some(5),
                    keep_wal_bytes_min: 1 << 20,
                    memory_bytes: 7,
                    age_max: Duration::from_secs(8),
                    image_percent: 30,
                    image_piece_bytes: 9,
                    chain_max: 4,
                    reserve_bytes: 6,
                    open_files_max: 512,
                    in_background: true,
                    retention: Retention { window_bytes: Some(7), window_seconds: Some(8) },
                },
                unload: UnloadOptions { idle: Duration::from_secs(9), loaded_max: 7 },
                expiry_grace: Duration::from_secs(7),
                collect_every: Duration::from_secs(9),
                lsn_timeout: Duration::from_secs(5),
                unknown_keys: vec!["colour".into()],
            }
        );
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_holds() {
        let error = parse("format_version = 2\nlisten = [1, 2]").unwrap_err();
        assert!(matches!(error, ConfigError::NewerFormat { found: 2, .. }), "{error}");
    }

    #[test]
    fn bad_values_are_named_in_one_line() {
        for (text, expected) in [
            ("", "format_version"),
            ("format_version = 0", "format_version"),
            ("format_version = 1\nlisten = \"here\"", "listen"),
            ("format_version = 1\nlsn_timeout_seconds = 0", "lsn_timeout_seconds"),
            ("format_version = 1\n[walredo]\nprocesses = 0", "walredo.processes"),
            ("format_version = 1\n[walredo]\nahead_percent = 101", "walredo.ahead_percent"),
            ("format_version = 1\n[walredo]\nprocesses_min = 0", "walredo.processes_min"),
            ("format_version = 1\n[walredo]\nlibraries = ['a\"b']", "walredo.libraries"),
            ("format_version = 1\n[cache]\nbytes = 1", "cache.bytes"),
            ("format_version = 1\n[cache]\nbytes = \"x\"", "bytes"),
            ("format_version = 1\n[layers]\nstretch_bytes = 1", "layers.stretch_bytes"),
            ("format_version = ", "format_version"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?} gave {message:?}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn a_folder_without_the_file_is_not_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Config::load(dir.path()), Err(ConfigError::NotARepository(_))));
    }
}
