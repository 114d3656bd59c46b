//! Detaching: a timeline that was forked becomes one that begins with an image of its own.
//!
//! The steps are ordered so that a crash between any two leaves a timeline that is whole, forked or not:
//!
//! 1. The manifest says that it is to be detached, so that it is gone on with after a restart.
//! 2. An image at its beginning gets among its layers, made of what the ancestor answers there. Its
//!    ancestor may still be asked, but need not.
//! 3. `pg_control` is there, which each root has.
//! 4. The manifest names no ancestor any more, and then nobody asks for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::freeze::FreezeError;
use super::manifest::Origin;
use super::{Below, Timeline, control_file_in};
use crate::work::WorkKind;

impl Timeline {
    /// Whether it is to be detached, and is not yet.
    pub fn is_detaching(&self) -> bool {
        self.detaching.load(Ordering::Relaxed)
    }

    /// Remembers durably that it is to be detached, or not.
    ///
    /// # Errors
    /// `Manifest`.
    pub(crate) fn set_detaching(&self, detaching: bool) -> Result<(), FreezeError> {
        let layered = self.layered.lock();
        self.write_manifest(&layered, self.origin(), detaching)?;
        self.detaching.store(detaching, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the image with which it can begin by itself, if it is not there.
    ///
    /// # Errors
    /// See `FreezeError`; `ShutDown` if it is shut down meanwhile.
    pub(crate) fn prepare_detaching(self: &Arc<Self>) -> Result<(), FreezeError> {
        let _reshaping = self.reshaping.lock();
        let Below::Ancestor(ancestor, at) = &*self.below() else { return Ok(()) };
        // What counts is what is there for those that read, which is the ancestor's until the end.
        match self.image_of(ancestor, *at, WorkKind::Detaching)? {
            true => Ok(()),
            false => Err(FreezeError::ShutDown),
        }
    }

    /// Lets it stand on nothing but its own image. `false`: that is not there, or somebody else is about
    /// the layers just now. The caller sees to it that nobody asks for what is before its beginning.
    ///
    /// # Errors
    /// `Io`, `Manifest`.
    pub(crate) fn finish_detaching(&self) -> Result<bool, FreezeError> {
        let Some(_reshaping) = self.reshaping.try_lock() else { return Ok(false) };
        let Below::Ancestor(_, at) = *self.below() else { return Ok(true) };
        if !self.has_image_at(at) {
            return Ok(false);
        }
        let path = control_file_in(&self.dir);
        durable_files::write_file(&path, &self.cluster.control_file_bytes)
            .map_err(|source| FreezeError::Io { path, source })?;
        let layered = self.layered.lock();
        self.write_manifest(&layered, Origin::OwnImage, false)?;
        self.detaching.store(false, Ordering::Relaxed);
        let before = self.history.write().stand_alone();
        drop(layered);
        // Perhaps the last who had the ancestor.
        drop(before);
        Ok(true)
    }
}
