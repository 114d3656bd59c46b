//! Making a compute: a base backup from the page server, unpacked under a name that is none, and
//! renamed when it is whole.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pageserver_client::{At, Generation, InstanceId, Point, WriterTextError};
use postgres_formats::Lsn;

use super::layout::{COMPUTES_DIR, DESTROYING_PREFIX, Layout, MAKING_PREFIX};
use super::{Compute, ComputeOptions, Mode, Replaced, advance, settings, settle, spread, unpack};
use crate::branch::{Branch, check_name};
use crate::error::{Error, IoContext, Result, Thing};
use crate::leases::ReadLease;
use crate::lock::Lock;
use crate::ports;
use crate::repository::Repository;

/// Only one compute is made at a time, so that two cannot take the same branch or port.
const LOCK: &str = "computes.lock";

/// Begins the names of throw-away computes; then comes the process that they are for.
const THROW_AWAY_PREFIX: &str = ".throw-away-";

impl Compute {
    /// Makes a compute. Nothing is started; if it fails, nothing is left.
    pub fn create(
        repository: &Repository,
        name: &str,
        options: &ComputeOptions,
    ) -> Result<Compute> {
        let branch_name = check_name(name)?;
        let _lock = repository.lock_computes()?;
        let layout = Layout::new(repository, name);
        if layout.dir().exists() {
            return Err(Error::AlreadyExists {
                thing: Thing::Compute,
                name: name.to_owned(),
                hint: format!("start it with `zenith pg start {name}`"),
            });
        }
        let point = options.at.clone().unwrap_or_else(|| Point::end_of(branch_name));
        let (branch, point) = repository.locate(&point)?;
        let instance = new_instance()?;
        if point.at != At::End {
            let place = Place::detached(repository.lsn_of(&branch, &point)?);
            return Compute::build(repository, name, layout, &branch, instance, place, options);
        }
        // It fails too often for small reasons to take the role first.
        choose_port(repository, options.port)?;
        let (writer, replaced) = repository.claim_for_new(&branch, &instance, name)?;
        let place = Place {
            mode: Mode::ReadWrite,
            base_lsn: writer.since_lsn,
            generation: Some(writer.generation),
            replaced,
            read_lease: None,
        };
        let claimed = instance.clone();
        Compute::build(repository, name, layout, &branch, instance, place, options).inspect_err(
            |_| {
                // If that fails too, the next one replaces a compute that has never been.
                let _ = repository.release(branch.timeline, &claimed);
            },
        )
    }

    /// Makes a detached compute under a name that no listing shows.
    pub fn create_throw_away(repository: &Repository, point: &Point) -> Result<Compute> {
        let _lock = repository.lock_computes()?;
        let (branch, point) = repository.locate(point)?;
        let base_lsn = repository.lsn_of(&branch, &point)?;
        let own = std::process::id();
        let name = format!("{THROW_AWAY_PREFIX}{own}-{:08x}", rand::random::<u32>());
        let layout = Layout::new(repository, &name);
        let (options, place) = (ComputeOptions::default(), Place::detached(base_lsn));
        let instance = new_instance()?;
        // Whoever uses it may be killed, and then nobody would give up what is kept for it.
        let what = name.trim_start_matches('.');
        let lease =
            ReadLease::begin(repository, &instance, what, branch.timeline, base_lsn, false)?;
        let place = Place { read_lease: Some(Arc::new(lease)), ..place };
        Compute::build(repository, &name, layout, &branch, instance, place, &options)
    }

    fn build(
        repository: &Repository,
        name: &str,
        layout: Layout,
        branch: &Branch,
        instance: InstanceId,
        place: Place,
        options: &ComputeOptions,
    ) -> Result<Compute> {
        let compute = Compute {
            repository: repository.clone(),
            name: name.to_owned(),
            layout,
            branch: branch.name.to_string(),
            timeline: branch.timeline,
            base_lsn: place.base_lsn,
            mode: place.mode,
            durability: options.durability,
            port: choose_port(repository, options.port)?,
            instance,
            generation: place.generation,
            boot_id: settle::current_boot_id()?,
            replaced: place.replaced,
            read_lease: place.read_lease,
        };
        let address = repository.server_address()?;
        let _identity = repository.account().enter();
        repository.remove_leftovers();
        let building = Building::begin(&compute)?;
        // Who it is first: after a crash that says whose lease nobody needs any more.
        compute.write(&building.layout)?;
        if compute.read_lease.is_none() {
            repository.drop_leases_of_lost(name, Some(&compute.instance))?;
            compute.hold(compute.base_lsn)?;
        }
        unpack::base_backup(&address.unix, &compute, &building.layout)?;
        settings::write_initial(&building.layout.pgdata())?;
        advance::create(&building.layout, compute.made_at())?;
        building.finish()?;
        Ok(compute)
    }
}

impl Repository {
    /// Held by whoever makes a compute.
    pub(crate) fn lock_computes(&self) -> Result<Lock> {
        Lock::acquire(self.account(), &self.run_file(LOCK))
    }

    /// Removes what processes that were killed have left: computes half made or half removed, and
    /// throw-away ones. The caller holds the lock for making computes, so nobody is making one now. What
    /// cannot be removed is tried again next time.
    pub(crate) fn remove_leftovers(&self) {
        let _identity = self.account().enter();
        let folder = self.dir().join(COMPUTES_DIR);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(MAKING_PREFIX) || name.starts_with(DESTROYING_PREFIX) {
                match Compute::read(self, name) {
                    Ok(compute) => compute.remove_doomed(&compute.layout),
                    Err(_) => drop(fs::remove_dir_all(entry.path())),
                }
            }
            let owner = name
                .strip_prefix(THROW_AWAY_PREFIX)
                .and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
            if let Some(owner) = owner
                && !Path::new(&format!("/proc/{owner}")).exists()
                && let Ok(compute) = Compute::read(self, name)
            {
                let _ = compute.destroy();
            }
        }
    }

    /// Has the page server keep nothing any more for computes called `name` whose directory is gone. Gives
    /// whether there were any.
    pub fn forget_lost_compute(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let _lock = self.lock_computes()?;
        if Layout::new(self, name).dir().exists() {
            return Ok(false);
        }
        Ok(self.drop_leases_of_lost(name, None)? > 0)
    }
}

/// Where a compute begins, and whether it goes on from there for its branch.
struct Place {
    mode: Mode,
    base_lsn: Lsn,
    generation: Option<Generation>,
    replaced: Option<Replaced>,
    read_lease: Option<Arc<ReadLease>>,
}

impl Place {
    fn detached(base_lsn: Lsn) -> Place {
        let (generation, replaced, read_lease) = (None, None, None);
        Place { mode: Mode::Detached, base_lsn, generation, replaced, read_lease }
    }
}

/// Another one each time.
pub(crate) fn new_instance() -> Result<InstanceId> {
    let text = format!("{:016x}", rand::random::<u64>());
    text.parse().map_err(|error: WriterTextError| Error::InvalidArgument(error.to_string()))
}

fn choose_port(repository: &Repository, wanted: Option<u16>) -> Result<u16> {
    let taken: Vec<(u16, String)> =
        repository.computes()?.into_iter().map(|compute| (compute.port, compute.name)).collect();
    let Some(port) = wanted else {
        let taken: Vec<u16> = taken.into_iter().map(|(port, _)| port).collect();
        return ports::choose(&taken);
    };
    if let Some((_, owner)) = taken.iter().find(|(other, _)| *other == port) {
        return Err(Error::Conflict(format!(
            "port {port} belongs to the compute {owner:?}; choose another, or none to get a free one"
        )));
    }
    if !ports::is_free(port) {
        return Err(Error::Conflict(format!(
            "port {port} is in use by another program; choose another, or none to get a free one"
        )));
    }
    Ok(port)
}

/// A compute being made; removed when dropped unfinished.
struct Building<'c> {
    compute: &'c Compute,
    layout: Layout,
    finished: bool,
}

impl Building<'_> {
    fn begin(compute: &Compute) -> Result<Building<'_>> {
        let repository = &compute.repository;
        let computes: PathBuf = repository.dir().join(COMPUTES_DIR);
        let private = |path: &Path| {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(path).io("create", path)
        };
        private(&computes)?;
        spread::spread_folders_of(&computes);
        let unlisted = format!("{MAKING_PREFIX}{}", compute.name.trim_start_matches('.'));
        let layout = Layout::new(repository, &unlisted);
        let building = Building { compute, layout, finished: false };
        private(&building.layout.pgdata())?;
        private(&building.layout.presence())?;
        Ok(building)
    }

    fn finish(mut self) -> Result<()> {
        let layout = &self.compute.layout;
        // Not synced: what a power loss takes away is made anew from the page server.
        fs::rename(self.layout.dir(), layout.dir()).io("rename", self.layout.dir())?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.compute.remove_doomed(&self.layout);
        }
    }
}
