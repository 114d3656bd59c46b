//! Fetching everything that a compute does not have yet. How it goes together with whatever its server
//! does meanwhile is argued in `lazyfiles/SAFETY.md`, "From outside".

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lazyfiles::base::BaseLsn;
use lazyfiles::hydrate::{self, BLOCKS_AHEAD_MAX, HydrateError, Stubs};
use lazyfiles::lazy_file::Durability;
use lazyfiles::presence::BootId;
use lazyfiles::remote::RemotePages;
use lazyfiles::settings::Settings;
use lazyfiles::source::FetchError;
use postgres_formats::BLCKSZ;
use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};

use super::layout::Layout;
use super::{Compute, ComputeFile, Mode};
use crate::error::{Error, IoContext, Result, Thing};

/// How long a page server is waited for that is being restarted.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a control file is read that its server is just writing.
const CONTROL_FILE_READS_MAX: u32 = 5;

/// How far a hydration is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HydrateProgress {
    /// Bytes that were absent and are no more.
    pub done: u64,
    /// Bytes that were absent when it began.
    pub total: u64,
}

/// What a hydration has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hydrated {
    /// Bytes that it has fetched. The compute itself may have fetched others meanwhile.
    pub fetched: u64,
    /// Bytes that are still absent, because the history at the base LSN has them no more: the compute has
    /// crashed in the middle of removing them, and its next start goes on with that.
    pub left: u64,
}

impl Compute {
    /// Fetches every page that the compute does not have yet, and makes them durable. From then on it asks
    /// the page server for nothing more.
    ///
    /// It may run or be stopped, be started or stopped meanwhile, and others may do the same at the same
    /// time. What breaks off is taken up by doing it again.
    ///
    /// `progress` is told often how far it is. `is_canceled` is asked often and also while the page server
    /// is waited for; when it says so, this ends with an error.
    pub fn hydrate(
        &self,
        progress: &mut dyn FnMut(HydrateProgress),
        is_canceled: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<Hydrated> {
        self.refuse_if_fenced()?;
        let pageserver = self.repository.server_address()?.unix;
        {
            let _lock = self.lock()?;
            let _identity = self.repository.account().enter();
            self.ensure_base()?;
        }
        let _identity = self.repository.account().enter();
        let folder = Folder::open(self)?;
        let layout = folder.layout();
        let mut pages =
            self.pages_from_outside(&layout, pageserver, PATIENCE, is_canceled.clone())?;
        let (pgdata, presence) = (layout.pgdata(), layout.presence());
        let stubs = self.stubs(&pgdata, &presence)?;
        let mut tell = |blocks: hydrate::Progress| {
            let bytes = |blocks: u64| blocks * BLCKSZ as u64;
            progress(HydrateProgress { done: bytes(blocks.done), total: bytes(blocks.total) });
            !is_canceled()
        };
        let hydrated = hydrate::hydrate(stubs, &mut pages, &mut tell);
        if !folder.is_still(self) {
            return Err(self.gone());
        }
        let hydrated = hydrated.map_err(|error| self.explain(error))?;
        self.settle_in_background()?;
        let bytes = |blocks: u64| blocks * BLCKSZ as u64;
        Ok(Hydrated { fetched: bytes(hydrated.blocks), left: bytes(hydrated.left) })
    }

    /// The page server as the source of pages for a process that is none of the compute's, whose files are
    /// found in `layout`.
    pub(super) fn pages_from_outside(
        &self,
        layout: &Layout,
        pageserver: String,
        patience: Duration,
        is_canceled: impl Fn() -> bool + Send + 'static,
    ) -> Result<RemotePages> {
        let base = BaseLsn::open(&layout.base())
            .map_err(|e| Error::Corrupt { path: self.layout.base(), detail: e.to_string() })?;
        let settings = Settings {
            pageserver,
            timeline: self.timeline,
            // History as it is at the base LSN does not depend on who writes the branch.
            generation: None,
            base: layout.base(),
            pgdata: layout.pgdata(),
            presence: layout.presence(),
            profile: None,
            timeout: patience,
        };
        let checksums = has_checksums(&settings.pgdata)?;
        Ok(RemotePages::new(&settings, base, checksums, is_canceled).for_many(BLOCKS_AHEAD_MAX))
    }

    /// Its files, in these folders.
    pub(super) fn stubs<'a>(&self, pgdata: &'a Path, presence: &'a Path) -> Result<Stubs<'a>> {
        let boot = BootId::current().io("read", "the boot id")?;
        // As `settings::write_forced` has it.
        let fsync = self.mode == Mode::ReadWrite;
        let durability = Durability { fsync, retries_failed_sync: false };
        Ok(Stubs { pgdata, presence, boot, durability })
    }

    fn gone(&self) -> Error {
        Error::NotFound { thing: Thing::Compute, name: self.name.clone(), hint: String::new() }
    }

    fn explain(&self, error: HydrateError) -> Error {
        let again = format!("`zenith pg hydrate {}` goes on from there", self.name);
        match error {
            HydrateError::Fetch(FetchError::Canceled) => {
                Error::Conflict(format!("interrupted; what was fetched stays, and {again}"))
            }
            HydrateError::Fetch(error) => Error::Conflict(format!("{error}; {again}")),
            HydrateError::Map(error) => Error::Conflict(format!(
                "{error}; make the compute anew: `zenith pg destroy {}`",
                self.name
            )),
            HydrateError::Io { action, path, source } => {
                Error::Io { action, path: self.layout.pgdata().join(path), source }
            }
        }
    }
}

/// The directory of a compute, held open: its files are found through it, and never those of another
/// compute that is made meanwhile under the same name.
struct Folder {
    file: File,
}

impl Folder {
    fn open(compute: &Compute) -> Result<Folder> {
        let dir = compute.layout.dir();
        let file = match File::open(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(compute.gone());
            }
            opened => opened.io("open", dir)?,
        };
        let folder = Folder { file };
        let text = fs::read_to_string(folder.layout().compute_file());
        let found: Option<ComputeFile> = text.ok().and_then(|text| toml::from_str(&text).ok());
        match found {
            Some(found) if found.instance == compute.instance.as_str() => Ok(folder),
            _ => Err(compute.gone()),
        }
    }

    fn layout(&self) -> Layout {
        Layout::at(&PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())))
    }

    /// Whether it is still the directory of `compute`.
    fn is_still(&self, compute: &Compute) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::metadata(compute.layout.dir())) {
            (Ok(own), Ok(named)) => identity(own) == identity(named),
            _ => false,
        }
    }
}

/// Whether the pages of the cluster at `pgdata` carry checksums.
fn has_checksums(pgdata: &Path) -> Result<bool> {
    let path = pgdata.join(CONTROL_FILE_PATH);
    let mut reads = 0;
    loop {
        reads += 1;
        let bytes = fs::read(&path).io("read", &path)?;
        match ControlFile::decode(&bytes) {
            Ok(control) => return Ok(control.has_data_checksums()),
            Err(_) if reads < CONTROL_FILE_READS_MAX => {}
            Err(error) => return Err(Error::Corrupt { path, detail: error.to_string() }),
        }
    }
}
