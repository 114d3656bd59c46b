//! Computes: stock PostgreSQL servers on lazily filled data directories.

mod advance;
mod create;
mod follow;
mod hydrate;
mod layout;
mod lock_file;
mod run;
mod settings;
mod settle;
mod spread;
mod start_profile;
mod tablespaces;
mod unpack;
mod writer;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pageserver_client::{Generation, InstanceId, Point};
use postgres_formats::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use crate::branch::check_name;
use crate::error::{Error, IoContext, Result, Thing};
use crate::leases::ReadLease;
use crate::repository::Repository;

pub use advance::Advance;
pub(crate) use create::new_instance;
pub use hydrate::{HydrateProgress, Hydrated};
use layout::{COMPUTE_FILE, Layout};
pub use writer::Replaced;

pub use unpack::unpack_base_backup;

/// Version of `zenith-compute.toml`.
const FORMAT_VERSION: u32 = 1;

/// What an acknowledged commit of a compute survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A crash of the compute. The page server follows a moment behind.
    #[default]
    Local,
    /// The loss of the compute's disk too: a commit waits until the page server has its WAL.
    PageServer,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Local => "local",
            Durability::PageServer => "pageserver",
        })
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Durability> {
        match text {
            "local" => Ok(Durability::Local),
            "pageserver" => Ok(Durability::PageServer),
            _ => Err(Error::InvalidArgument(format!(
                "{text:?} is not a durability: expected local or pageserver"
            ))),
        }
    }
}

/// Where a compute's changes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// To the page server, as the continuation of its branch. One such compute per branch.
    ReadWrite,
    /// Nowhere: they stay in its own directory and are gone with it. Any number of such computes,
    /// at any point.
    Detached,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::ReadWrite => "read-write",
            Mode::Detached => "detached",
        })
    }
}

/// How to make a compute.
#[derive(Clone, Default, Debug)]
pub struct ComputeOptions {
    /// Where it begins; `None` means the end of the branch that has the compute's name.
    ///
    /// At the end of a branch the compute continues that branch. At an LSN or a time it is
    /// detached, since history can only be continued at its end.
    pub at: Option<Point>,
    /// What its commits survive.
    pub durability: Durability,
    /// Its TCP port; a free one if not given.
    pub port: Option<u16>,
}

/// `zenith-compute.toml`: what must be remembered of a compute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct ComputeFile {
    format_version: u32,
    branch: String,
    timeline: String,
    base_lsn: String,
    mode: Mode,
    durability: Durability,
    port: u16,
    /// Random; tells this compute from others that had its name before.
    instance: String,
    /// As which writer of its timeline it was started last. Absent in a compute that writes none, and
    /// in one made before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// The run of the machine in which it was made.
    boot_id: String,
}

/// A compute of a repository. Cheap to clone; holds no lock and no connection.
#[derive(Clone, Debug)]
pub struct Compute {
    repository: Repository,
    name: String,
    layout: Layout,
    branch: String,
    timeline: TimelineId,
    base_lsn: Lsn,
    mode: Mode,
    durability: Durability,
    port: u16,
    instance: InstanceId,
    generation: Option<Generation>,
    boot_id: String,
    /// Known only to whoever has just made it.
    replaced: Option<Replaced>,
    /// That of a throw-away compute, for as long as somebody has it.
    read_lease: Option<Arc<ReadLease>>,
}

/// Whether a compute runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComputeState {
    /// It accepts connections.
    Running,
    /// Its process exists, and does not accept connections yet or any more.
    Busy,
    /// It does not run.
    Stopped,
}

impl fmt::Display for ComputeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ComputeState::Running => "running",
            ComputeState::Busy => "busy",
            ComputeState::Stopped => "stopped",
        })
    }
}

/// What `pg list` tells of a compute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComputeStatus {
    /// Whether it runs.
    pub state: ComputeState,
    /// Its process number, if it runs.
    pub pid: Option<i32>,
}

impl Repository {
    /// All computes, sorted by name.
    pub fn computes(&self) -> Result<Vec<Compute>> {
        let folder = self.dir().join(layout::COMPUTES_DIR);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.io("list", &folder)?,
        };
        let mut computes = Vec::new();
        for entry in entries {
            let name = entry.io("list", &folder)?.file_name();
            // Names that cannot be a compute's are those of unfinished and throw-away ones.
            if let Some(name) = name.to_str().filter(|name| check_name(name).is_ok())
                && folder.join(name).join(COMPUTE_FILE).exists()
            {
                computes.push(Compute::read(self, name)?);
            }
        }
        computes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(computes)
    }

    /// The compute with this name.
    pub fn compute(&self, name: &str) -> Result<Compute> {
        check_name(name)?;
        if !Layout::new(self, name).compute_file().exists() {
            return Err(Error::NotFound {
                thing: Thing::Compute,
                name: name.to_owned(),
                hint: format!("make it with `zenith pg create {name}`"),
            });
        }
        Compute::read(self, name)
    }
}

impl Compute {
    fn read(repository: &Repository, name: &str) -> Result<Compute> {
        let layout = Layout::new(repository, name);
        let path = layout.compute_file();
        let text = fs::read_to_string(&path).io("read", &path)?;
        let corrupt = |detail: String| Error::Corrupt {
            path: path.clone(),
            detail: detail.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let file: ComputeFile = toml::from_str(&text).map_err(|e| corrupt(e.to_string()))?;
        if file.format_version != FORMAT_VERSION {
            return Err(Error::Conflict(format!(
                "{} has format {}, and this zenith reads format {FORMAT_VERSION}; use the zenith \
                 that made it",
                path.display(),
                file.format_version
            )));
        }
        Ok(Compute {
            repository: repository.clone(),
            name: name.to_owned(),
            timeline: file.timeline.parse().map_err(|e| corrupt(format!("{e}")))?,
            base_lsn: file.base_lsn.parse().map_err(|e| corrupt(format!("{e}")))?,
            branch: file.branch,
            mode: file.mode,
            durability: file.durability,
            port: file.port,
            instance: file.instance.parse().map_err(|e| corrupt(format!("{e}")))?,
            generation: file.generation.map(Generation),
            boot_id: file.boot_id,
            replaced: None,
            read_lease: None,
            layout,
        })
    }

    /// Writes `zenith-compute.toml` into the compute's directory as `layout` has it.
    fn write(&self, layout: &Layout) -> Result<()> {
        let file = ComputeFile {
            format_version: FORMAT_VERSION,
            branch: self.branch.clone(),
            timeline: self.timeline.to_string(),
            base_lsn: self.base_lsn.to_string(),
            mode: self.mode,
            durability: self.durability,
            port: self.port,
            instance: self.instance.to_string(),
            generation: self.generation.map(|generation| generation.0),
            boot_id: self.boot_id.clone(),
        };
        let path = layout.compute_file();
        let text = toml::to_string(&file)
            .map_err(|e| Error::Corrupt { path: path.clone(), detail: e.to_string() })?;
        durable_files::write_file(&path, text.as_bytes()).io("write", &path)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its branch.
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// Remembers that its branch has another name now.
    pub(crate) fn set_branch(&mut self, name: &str) -> Result<()> {
        self.branch = name.to_owned();
        let _identity = self.repository.account().enter();
        self.write(&self.layout)
    }

    /// Tells it from others that had its name before.
    pub(crate) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// The line of history it is on.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The LSN at which it was made, and its own WAL begins.
    pub(crate) fn made_at(&self) -> Lsn {
        self.base_lsn
    }

    /// The LSN at which it reads pages that it does not have.
    pub fn base_lsn(&self) -> Lsn {
        advance::read(&self.layout).unwrap_or(self.base_lsn)
    }

    /// Where its changes go.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What its commits survive.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Its TCP port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The compute that it was made to replace, if it has just been made and there was one.
    pub fn replaced(&self) -> Option<&Replaced> {
        self.replaced.as_ref()
    }

    /// The repository it belongs to.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Its data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.layout.pgdata()
    }

    /// The folder of its presence maps.
    pub(crate) fn presence(&self) -> PathBuf {
        self.layout.presence()
    }

    /// The file that has its log.
    pub fn log(&self) -> PathBuf {
        self.layout.log()
    }

    /// Whether its changes are meant to continue `timeline`; another compute may have taken that over.
    pub(crate) fn continues(&self, timeline: TimelineId) -> bool {
        self.mode == Mode::ReadWrite && self.timeline == timeline
    }

    /// A libpq connection URI of `database`.
    pub fn connstr(&self, database: &str) -> String {
        let database: String = database.bytes().map(percent_encoded).collect();
        format!("postgresql://{}@127.0.0.1:{}/{database}", crate::init::SUPERUSER, self.port)
    }

    /// A libpq connection string over its Unix socket, with the database `postgres`.
    pub(crate) fn socket_connstr(&self, socket_dir: &Path) -> String {
        let host = socket_dir.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
        let user = crate::init::SUPERUSER;
        format!("host='{host}' port={} user={user} dbname=postgres", self.port)
    }
}

fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

#[cfg(test)]
mod tests;
