//! `Leases`: what computes and readers need of history, so that it is not removed.
//!
//! A compute reads the pages that it does not have at its base LSN, now or in a year: it has a lease until it is
//! destroyed. A reader, a verification for instance, has one that lasts for a time and is renewed meanwhile. Both are
//! files, so that a restart of the page server loses neither; a reader's then lasts for its whole time again.
//! Whoever is being answered on a connection has no file (`reading.rs`): a restart ends the connection as well.
//!
//! Whether there is still what a lease asks for is looked at by `Repository::lease`, under the lock under
//! which history is removed.

mod file;
mod reading;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use durable_files::FactError;
use pageserver_client::InstanceId;
use parking_lot::Mutex;
use postgres_formats::Lsn;

pub use file::Lease;
pub(crate) use file::write_all_known;
pub use reading::{Readings, Stream};

/// The leases of a repository. Changed by one at a time.
pub struct Leases {
    dir: PathBuf,
    // LOCK ORDER: a leaf; never held during IO.
    held: Mutex<BTreeMap<InstanceId, Held>>,
    unreadable: Vec<(String, FactError)>,
    all_known: Mutex<bool>,
}

struct Held {
    lease: Lease,
    /// When it ends by itself.
    until: Option<Instant>,
}

impl Held {
    fn new(lease: Lease) -> Held {
        // What lasts longer than a clock can tell lasts.
        let until = lease.lasts.and_then(|lasts| Instant::now().checked_add(lasts));
        Held { lease, until }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

impl Leases {
    /// Reads those of the repository in `dir`. What lasts for a time does so from now on.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn open(dir: &Path) -> Result<Leases, FactError> {
        let found = file::read_all(dir)?;
        let held = found.leases.into_iter().map(|lease| (lease.holder.clone(), Held::new(lease)));
        Ok(Leases {
            dir: dir.to_owned(),
            held: Mutex::new(held.collect()),
            unreadable: found.unreadable,
            all_known: Mutex::new(found.all_known),
        })
    }

    /// All that are not over.
    pub fn list(&self) -> Vec<Lease> {
        let held = self.held.lock();
        held.values().filter(|held| !held.is_over()).map(|held| held.lease.clone()).collect()
    }

    /// That of a holder, if it is not over.
    pub fn get(&self, holder: &InstanceId) -> Option<Lease> {
        let held = self.held.lock();
        held.get(holder).filter(|held| !held.is_over()).map(|held| held.lease.clone())
    }

    /// Which files cannot be read, and why: nobody knows what they hold.
    pub fn unreadable(&self) -> &[(String, FactError)] {
        &self.unreadable
    }

    /// Whether there is no compute without a lease, as one that was made before there were any.
    pub fn all_known(&self) -> bool {
        *self.all_known.lock()
    }

    /// Remembers that.
    ///
    /// # Errors
    /// See `FactError`.
    pub(crate) fn set_all_known(&self) -> Result<(), FactError> {
        if !self.all_known() {
            write_all_known(&self.dir)?;
            *self.all_known.lock() = true;
        }
        Ok(())
    }

    /// Gives out a lease, or another one in the place of one that the holder has.
    ///
    /// # Errors
    /// See `FactError`. What was held before is held still, and nothing else.
    pub(crate) fn set(&self, lease: Lease) -> Result<(), FactError> {
        if let Err(error) = lease.write(&self.dir) {
            // It may be there already, and only not be sure to last.
            let had = self.held.lock().get(&lease.holder).map(|held| held.lease.clone());
            let _ = match had {
                Some(had) => had.write(&self.dir),
                None => Lease::remove(&self.dir, &lease.holder),
            };
            return Err(error);
        }
        self.held.lock().insert(lease.holder.clone(), Held::new(lease));
        Ok(())
    }

    /// Lets one that is not over last for its time from now on. `false`: there is none.
    pub fn renew(&self, holder: &InstanceId) -> bool {
        let mut held = self.held.lock();
        match held.get_mut(holder).filter(|held| !held.is_over()) {
            Some(found) => {
                *found = Held::new(found.lease.clone());
                true
            }
            None => false,
        }
    }

    /// Ends one. `false`: there was none.
    ///
    /// # Errors
    /// See `FactError`; then it is held still.
    pub(crate) fn drop(&self, holder: &InstanceId) -> Result<bool, FactError> {
        let Some(had) = self.held.lock().get(holder).map(|held| held.lease.clone()) else {
            return Ok(false);
        };
        if let Err(error) = Lease::remove(&self.dir, holder) {
            let _ = had.write(&self.dir);
            return Err(error);
        }
        self.held.lock().remove(holder);
        Ok(true)
    }

    /// Removes the files of those that are over.
    ///
    /// # Errors
    /// See `FactError`.
    pub(crate) fn drop_over(&self) -> Result<(), FactError> {
        let over: Vec<InstanceId> = {
            let held = self.held.lock();
            held.iter().filter(|(_, held)| held.is_over()).map(|(id, _)| id.clone()).collect()
        };
        over.iter().try_for_each(|holder| self.drop(holder).map(drop))
    }
}

impl Lease {
    /// The lease with more LSNs.
    pub(crate) fn and(mut self, lsns: &[Lsn]) -> Lease {
        self.lsns.extend(lsns);
        self.lsns.sort_unstable();
        self.lsns.dedup();
        self
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use std::time::Duration;

    use super::file::leases_dir;
    use super::file::tests::lease;
    use super::*;

    #[test]
    fn they_outlive_a_restart_and_end_when_they_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::open(dir.path()).unwrap();
        assert!(!leases.all_known());
        leases.set_all_known().unwrap();
        let [compute, reader] = [lease("a", &[8]), lease("b", &[16])];
        let reader = Lease { lasts: Some(Duration::from_secs(3600)), ..reader };
        let over = Lease { lasts: Some(Duration::ZERO), ..lease("c", &[24]) };
        for lease in [&compute, &reader, &over] {
            leases.set(lease.clone()).unwrap();
        }
        assert_eq!(leases.list(), [compute.clone(), reader.clone()]);
        assert!(leases.renew(&reader.holder) && !leases.renew(&over.holder));
        leases.drop_over().unwrap();
        assert!(!leases_dir(dir.path()).join("c").exists());

        let leases = Leases::open(dir.path()).unwrap();
        assert!(leases.all_known());
        assert_eq!(leases.list(), [compute.clone(), reader.clone()]);
        let moved = compute.clone().and(&[Lsn::new(32), Lsn::new(8)]);
        assert_eq!(moved.lsns, [Lsn::new(8), Lsn::new(32)]);
        leases.set(moved.clone()).unwrap();
        assert_eq!(leases.get(&compute.holder), Some(moved));
        assert!(leases.drop(&compute.holder).unwrap() && !leases.drop(&compute.holder).unwrap());
        assert_eq!(Leases::open(dir.path()).unwrap().list(), [reader]);
    }
}
