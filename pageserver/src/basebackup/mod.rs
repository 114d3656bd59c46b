//! The base backup: what a compute starts from at one LSN, as a tar stream.
//!
//! Everything but the relations is there for real. Relations are listed in the first entry
//! (`layout::RELATION_LIST`) and become sparse stubs; so do SLRUs if they are wanted as such, or nothing
//! if all is wanted whole. The compute finds a cleanly stopped cluster:
//! `pg_control` says "shut down" and its checkpoint is at the base LSN, in a WAL segment made for
//! the purpose, so that stock PostgreSQL starts without recovery. `pg_control` is the last entry:
//! what is left of a transfer that broke off cannot be started.
//!
//! `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` are not in it, for they say how a compute
//! is run, not what its data are.

mod archive;
pub(crate) mod layout;
mod pages;
mod slru;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use postgres_formats::control_file::{CONTROL_FILE_PATH, FIRST_UNLOGGED_LSN};
use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, database_path, relation_path};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH};
use postgres_formats::wal::synth;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag};

use crate::object::{DbTag, ObjectTag};
use crate::seqwait::WaitError;
use crate::timeline::error::TimelineError;
use crate::timeline::{GetPageError, StateAt, Timeline};
use archive::Archive;
use layout::{
    DIRECTORIES, PAGES_FOLDER, PG_VERSION, RELATION_LIST, files_of, is_reset, push_line,
    push_relation_lines, tablespace_dirs,
};
use pages::PageReader;
pub use slru::Form;

/// Why there is no base backup.
#[derive(Debug, thiserror::Error)]
pub enum BaseBackupError {
    /// The WAL up to the LSN did not come in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The state at the LSN cannot be told.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    /// A page cannot be read.
    #[error("cannot read a page for the base backup")]
    Page(#[from] GetPageError),
    /// The receiver is gone, or reading failed within the tar.
    #[error("cannot write the base backup")]
    Write(#[from] io::Error),
}

/// A base backup about to be sent.
pub struct BaseBackup {
    timeline: Arc<Timeline>,
    at: StateAt,
    form: Form,
    objects: BTreeMap<ObjectTag, u32>,
}

impl BaseBackup {
    /// Prepares the base backup at `lsn`, or at the end of the last record, and waits for that LSN.
    /// An LSN within a record stands for the end of the record before it.
    pub fn prepare(
        timeline: Arc<Timeline>,
        lsn: Option<Lsn>,
        form: Form,
        timeout: Duration,
    ) -> Result<BaseBackup, BaseBackupError> {
        let lsn = lsn.map_or_else(|| timeline.end_lsn(), Ok)?;
        timeline.check_lsn(lsn)?;
        timeline.wait_lsn(lsn, timeout)?;
        let at = timeline.state_at(lsn)?;
        let objects = timeline.list_objects(at.base)?;
        Ok(BaseBackup { timeline, at, form, objects })
    }

    /// Where the compute's own WAL will begin, and the LSN of the pages it does not have.
    pub fn base_lsn(&self) -> Lsn {
        self.at.base
    }

    /// Writes the tar and gives back what it was written to.
    pub fn write_to<W: Write>(&self, out: W) -> Result<W, BaseBackupError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut archive = Archive::new(out, now);
        let rels = || self.rels();
        let init_forks: BTreeSet<RelTag> =
            rels().map(|(rel, _)| rel).filter(|rel| rel.fork == ForkNumber::Init).collect();

        let mut list = String::new();
        let lasting = || {
            rels().filter(|(rel, _)| rel.fork != ForkNumber::Init && !is_reset(*rel, &init_forks))
        };
        if self.form != Form::Whole {
            lasting().for_each(|(rel, nblocks)| push_relation_lines(&mut list, rel, nblocks));
        }
        if self.form == Form::Stubs {
            for (path, _, pages) in self.slru_segments() {
                push_line(&mut list, &path, pages);
            }
        }
        archive.file(RELATION_LIST, list.as_bytes())?;

        self.write_directories(&mut archive)?;
        archive.file("PG_VERSION", PG_VERSION)?;
        // ALTER SYSTEM wants to have it.
        archive.file("postgresql.auto.conf", b"")?;
        for (rel, nblocks) in rels().filter(|(rel, _)| rel.fork == ForkNumber::Init) {
            self.write_init_fork(&mut archive, rel, nblocks)?;
        }
        if self.form == Form::Whole {
            for (rel, nblocks) in lasting() {
                self.write_fork(&mut archive, rel, ObjectTag::Rel(rel), nblocks)?;
            }
        }
        match self.form {
            Form::WholeSlrus | Form::Whole => self.write_slrus(&mut archive)?,
            Form::Stubs => self.write_pages_of_start(&mut archive)?,
        }
        for (xid, state) in self.timeline.two_phase(self.at.base)? {
            archive.file(&format!("pg_twophase/{xid:08X}"), &with_checksum(&state))?;
        }
        let origins = self.timeline.replication_origins(self.at.base)?;
        archive.file(REPLICATION_ORIGINS_PATH, &replication_origins::encode(&origins))?;
        self.write_wal(&mut archive)?;
        archive.file(CONTROL_FILE_PATH, &self.control_file())?;
        // What was needed may have been removed meanwhile; then this is not whole.
        self.timeline.check_lsn(self.at.base)?;
        Ok(archive.finish()?)
    }

    fn rels(&self) -> impl Iterator<Item = (RelTag, BlockNumber)> + '_ {
        self.objects.iter().filter_map(|(object, size)| match object {
            ObjectTag::Rel(rel) => Some((*rel, BlockNumber(*size))),
            ObjectTag::Slru { .. } => None,
        })
    }

    /// All folders, and in those of databases what tells PostgreSQL that they are such.
    fn write_directories<W: Write>(&self, archive: &mut Archive<W>) -> Result<(), BaseBackupError> {
        for directory in DIRECTORIES {
            archive.directory(directory)?;
        }
        let databases = self.timeline.databases(self.at.base)?;
        let tablespaces = self.timeline.tablespaces(self.at.base)?;
        for directory in tablespaces.into_keys().flat_map(tablespace_dirs) {
            archive.directory(&directory)?;
        }
        let shared = DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid::INVALID };
        if let Some(map) = self.rel_map(shared)? {
            archive.file("global/pg_filenode.map", &map)?;
        }
        for tag in databases.into_iter().filter(|tag| tag.spc != Oid::GLOBAL_TABLESPACE) {
            let dir = database_path(tag.spc, tag.db);
            archive.directory(&dir)?;
            // A database has a map, and a version, only where it is at home.
            if let Some(map) = self.rel_map(tag)? {
                archive.file(&format!("{dir}/PG_VERSION"), PG_VERSION)?;
                archive.file(&format!("{dir}/pg_filenode.map"), &map)?;
            }
        }
        Ok(())
    }

    fn rel_map(&self, tag: DbTag) -> Result<Option<Bytes>, TimelineError> {
        self.timeline.rel_map(tag, self.at.base)
    }

    /// An init fork goes in twice: as itself, and as the main fork that a crash would leave.
    fn write_init_fork<W: Write>(
        &self,
        archive: &mut Archive<W>,
        init: RelTag,
        nblocks: BlockNumber,
    ) -> Result<(), BaseBackupError> {
        for rel in [init, RelTag { fork: ForkNumber::Main, ..init }] {
            self.write_fork(archive, rel, ObjectTag::Rel(init), nblocks)?;
        }
        Ok(())
    }

    /// The files of the fork `rel`, with the first `nblocks` pages of `from`.
    fn write_fork<W: Write>(
        &self,
        archive: &mut Archive<W>,
        rel: RelTag,
        from: ObjectTag,
        nblocks: BlockNumber,
    ) -> Result<(), BaseBackupError> {
        for (file, blocks) in files_of(nblocks) {
            let path = relation_path(rel, file);
            self.write_pages(archive, &path, from, file * BLOCKS_PER_SEGMENT, blocks)?;
        }
        Ok(())
    }

    /// The segment files of SLRUs: path, object and size in pages.
    fn slru_segments(&self) -> impl Iterator<Item = (String, ObjectTag, u32)> + '_ {
        self.objects.iter().filter_map(|(object, pages)| match object {
            ObjectTag::Slru { kind, segment } => {
                Some((kind.segment_path(*segment), *object, *pages))
            }
            ObjectTag::Rel(_) => None,
        })
    }

    fn write_slrus<W: Write>(&self, archive: &mut Archive<W>) -> Result<(), BaseBackupError> {
        for (path, object, pages) in self.slru_segments() {
            self.write_pages(archive, &path, object, 0, pages)?;
        }
        Ok(())
    }

    /// One entry for each page of the stubs that PostgreSQL would otherwise fetch, one by one, before
    /// it accepts connections.
    fn write_pages_of_start<W: Write>(
        &self,
        archive: &mut Archive<W>,
    ) -> Result<(), BaseBackupError> {
        for page in slru::pages_of_start(&self.at.state.checkpoint, &self.objects) {
            if let ObjectTag::Slru { kind, segment } = page.object {
                let path = format!("{PAGES_FOLDER}/{}/{}", kind.segment_path(segment), page.block);
                self.write_pages(archive, &path, page.object, page.block.0, 1)?;
            }
        }
        Ok(())
    }

    fn write_pages<W: Write>(
        &self,
        archive: &mut Archive<W>,
        path: &str,
        object: ObjectTag,
        first: u32,
        count: u32,
    ) -> Result<(), BaseBackupError> {
        let mut pages = PageReader::new(self.timeline.clone(), self.at.base, object, first, count);
        let written = archive.file_from(path, u64::from(count) * BLCKSZ as u64, &mut pages);
        match pages.into_error() {
            Some(error) => Err(error.into()),
            None => Ok(written?),
        }
    }

    fn write_wal<W: Write>(&self, archive: &mut Archive<W>) -> Result<(), BaseBackupError> {
        let cluster = self.timeline.cluster();
        let segments = synth::bootstrap_wal(
            self.at.base,
            self.at.state.prev_record,
            &self.at.state.checkpoint,
            cluster.system_id,
            cluster.tli,
            cluster.segment_size,
        );
        for (number, bytes) in segments {
            let name = number.file_name(cluster.tli, cluster.segment_size);
            archive.file(&format!("pg_wal/{name}"), &bytes)?;
        }
        Ok(())
    }

    /// The control file of a cluster that was shut down at the base LSN.
    fn control_file(&self) -> Vec<u8> {
        let cluster = self.timeline.cluster();
        let base = self.at.base;
        let mut control = cluster.control_file.clone();
        let checkpoint = synth::shutdown_checkpoint(base, cluster.tli, &self.at.state.checkpoint);
        control.parameters = self.at.state.parameters;
        // Unlogged relations are empty, as after a crash.
        control.unlogged_lsn = FIRST_UNLOGGED_LSN;
        control.set_shut_down(base, checkpoint);
        control.encode()
    }
}

/// A file in `pg_twophase`: the state of a prepared transaction and its CRC-32C (`twophase.c`).
pub(crate) fn with_checksum(state: &[u8]) -> Vec<u8> {
    let mut file = state.to_vec();
    file.extend_from_slice(&crc32c::crc32c(state).to_le_bytes());
    file
}
