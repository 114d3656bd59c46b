//! `zenith.Branch`.

use std::time::Duration;

use bytes::Bytes;
use control_plane::{
    Branch, BranchName, Compute, ComputeOptions, Durability, Error, Point, Repository,
    RetentionSpec, Thing,
};
use postgres_formats::{BlockNumber, Lsn, Oid, RelTag};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::compute::PyCompute;
use crate::error::exceptions::{Conflict, InvalidArgument, NotFound};
use crate::error::raise;
use crate::lsn::{AnyLsn, PyLsn};
use crate::pages::PageReader;
use crate::verify::to_python;

/// A branch as it was when it was asked for.
#[pyclass(name = "Branch", module = "zenith", frozen)]
pub struct PyBranch {
    repository: Repository,
    branch: Branch,
    pages: PageReader,
}

impl PyBranch {
    /// The Python object for `branch` of `repository`.
    pub fn of(repository: &Repository, branch: Branch) -> PyBranch {
        let pages = PageReader::new(branch.timeline);
        PyBranch { repository: repository.clone(), branch, pages }
    }

    /// Its name.
    pub fn name(&self) -> &BranchName {
        &self.branch.name
    }

    /// The compute called `name` if it is on this branch, or a new one.
    fn find_or_create(&self, name: &str, options: &ComputeOptions) -> Result<Compute, Error> {
        match self.repository.compute(name) {
            Err(Error::NotFound { thing: Thing::Compute, .. }) => {
                Compute::create(&self.repository, name, options)
            }
            other => other,
        }
    }

    /// The LSN that was asked for, else the branch's end, with the commit that was just made.
    fn lsn_or_end(&self, lsn: Option<AnyLsn>) -> PyResult<Lsn> {
        if let Some(lsn) = lsn {
            return Ok(lsn.0);
        }
        let end = Point::end_of(&self.branch.name);
        self.repository.lsn_of(&self.branch, &end).map_err(raise)
    }

    fn read_pages(
        &self,
        rel: RelTag,
        first: u32,
        count: u32,
        lsn: Option<AnyLsn>,
    ) -> PyResult<Vec<Bytes>> {
        let lsn = self.lsn_or_end(lsn)?;
        self.pages.get_pages(&self.repository, rel, BlockNumber(first), count, lsn)
    }
}

fn rel_tag(spc: u32, db: u32, rel: u32, fork: &str) -> PyResult<RelTag> {
    let fork = fork.parse().map_err(|error| InvalidArgument::new_err(format!("{error}")))?;
    Ok(RelTag { spc: Oid(spc), db: Oid(db), rel: Oid(rel), fork })
}

#[pymethods]
impl PyBranch {
    #[getter(name)]
    fn py_name(&self) -> &str {
        &self.branch.name
    }

    #[getter]
    fn timeline(&self) -> String {
        self.branch.timeline.to_string()
    }

    #[getter]
    fn ancestor(&self) -> Option<(String, PyLsn)> {
        let ancestor = self.branch.ancestor.as_ref()?;
        Some((ancestor.timeline.to_string(), PyLsn(ancestor.lsn)))
    }

    #[getter]
    fn is_default(&self) -> bool {
        self.branch.is_default
    }

    #[getter]
    fn is_protected(&self) -> bool {
        self.branch.protected
    }

    /// How much of its history is kept.
    #[getter]
    fn retention(&self) -> String {
        self.branch.retention.to_string()
    }

    fn retain(&self, py: Python<'_>, retention: &str) -> PyResult<PyBranch> {
        let retention: RetentionSpec =
            retention.parse().map_err(|error| InvalidArgument::new_err(format!("{error}")))?;
        let branch = py
            .detach(|| self.repository.retain_branch(&self.branch.name, retention))
            .map_err(raise)?;
        Ok(PyBranch::of(&self.repository, branch))
    }

    /// When it may go by itself.
    #[getter]
    fn is_detaching(&self) -> bool {
        self.branch.detaching
    }

    #[getter]
    fn expires(&self) -> Option<&str> {
        self.branch.expires.as_deref()
    }

    #[pyo3(signature = (protected=true))]
    fn protect(&self, py: Python<'_>, protected: bool) -> PyResult<PyBranch> {
        let branch = py
            .detach(|| self.repository.protect_branch(&self.branch.name, protected))
            .map_err(raise)?;
        Ok(PyBranch::of(&self.repository, branch))
    }

    fn expire_in(&self, py: Python<'_>, lifetime: Option<Duration>) -> PyResult<()> {
        py.detach(|| self.repository.expire_branch(&self.branch.name, lifetime)).map_err(raise)
    }

    /// That the page server took in no more WAL of it when it was asked for: where, and why.
    #[getter]
    fn stop(&self) -> Option<(Option<PyLsn>, String)> {
        let stop = self.branch.stop.as_ref()?;
        Some((stop.lsn.map(PyLsn), stop.cause.clone()))
    }

    /// Asked anew each time: it moves.
    #[getter]
    fn last_record_lsn(&self, py: Python<'_>) -> PyResult<PyLsn> {
        py.detach(|| self.repository.last_record_lsn(self.branch.timeline))
            .map(PyLsn)
            .map_err(raise)
    }

    #[pyo3(signature = (name=None, *, lsn=None, durability=None, port=None))]
    fn compute(
        &self,
        py: Python<'_>,
        name: Option<&str>,
        lsn: Option<AnyLsn>,
        durability: Option<&str>,
        port: Option<u16>,
    ) -> PyResult<PyCompute> {
        let name = name.unwrap_or(&self.branch.name);
        let at = match lsn {
            Some(lsn) => Point::at_lsn(&self.branch.name, lsn.0),
            None => Point::end_of(&self.branch.name),
        };
        let durability: Option<Durability> =
            durability.map(str::parse).transpose().map_err(raise)?;
        let options =
            ComputeOptions { at: Some(at), durability: durability.unwrap_or_default(), port };
        let compute = py.detach(|| self.find_or_create(name, &options)).map_err(raise)?;
        let other = compute.timeline() != self.branch.timeline
            || lsn.is_some_and(|lsn| lsn.0 != compute.base_lsn())
            || durability.is_some_and(|durability| durability != compute.durability())
            || port.is_some_and(|port| port != compute.port());
        if other {
            return Err(Conflict::new_err(format!(
                "compute {name:?} exists already, and is another one than asked for; destroy it \
                 or choose another name"
            )));
        }
        Ok(PyCompute::of(compute))
    }

    #[pyo3(signature = (spc, db, rel, block, *, fork="main", lsn=None))]
    #[expect(clippy::too_many_arguments, reason = "most are keywords in Python")]
    fn get_page<'py>(
        &self,
        py: Python<'py>,
        spc: u32,
        db: u32,
        rel: u32,
        block: u32,
        fork: &str,
        lsn: Option<AnyLsn>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let rel = rel_tag(spc, db, rel, fork)?;
        let pages = py.detach(|| self.read_pages(rel, block, 1, lsn))?;
        let page = pages.first().ok_or_else(|| NotFound::new_err("there is no such page"))?;
        Ok(PyBytes::new(py, page))
    }

    #[pyo3(signature = (spc, db, rel, first, count, *, fork="main", lsn=None))]
    #[expect(clippy::too_many_arguments, reason = "most are keywords in Python")]
    fn get_pages<'py>(
        &self,
        py: Python<'py>,
        spc: u32,
        db: u32,
        rel: u32,
        first: u32,
        count: u32,
        fork: &str,
        lsn: Option<AnyLsn>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let rel = rel_tag(spc, db, rel, fork)?;
        let pages = py.detach(|| self.read_pages(rel, first, count, lsn))?;
        Ok(pages.iter().map(|page| PyBytes::new(py, page)).collect())
    }

    #[pyo3(signature = (spc, db, rel, *, fork="main", lsn=None))]
    fn rel_size(
        &self,
        py: Python<'_>,
        spc: u32,
        db: u32,
        rel: u32,
        fork: &str,
        lsn: Option<AnyLsn>,
    ) -> PyResult<Option<u32>> {
        let rel = rel_tag(spc, db, rel, fork)?;
        py.detach(|| self.pages.rel_size(&self.repository, rel, self.lsn_or_end(lsn)?))
    }

    fn checkpoint(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let done = py.detach(|| self.repository.checkpoint_of(&self.branch)).map_err(raise)?;
        to_python(py, &done)
    }

    fn compact(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let compact = || self.repository.compact_branch(&self.branch, &mut |_| {});
        let done = py.detach(compact).map_err(raise)?;
        to_python(py, &done)
    }

    #[pyo3(signature = (*, wait=false))]
    fn detach(&self, py: Python<'_>, wait: bool) -> PyResult<PyBranch> {
        let name = &self.branch.name;
        let branch = py.detach(|| match wait {
            true => self.repository.detach_branch_now(name, &mut |_| {}),
            false => self.repository.detach_branch(name),
        });
        Ok(PyBranch::of(&self.repository, branch.map_err(raise)?))
    }

    fn rename(&self, py: Python<'_>, name: &str) -> PyResult<PyBranch> {
        let branch =
            py.detach(|| self.repository.rename_branch(&self.branch.name, name)).map_err(raise)?;
        Ok(PyBranch::of(&self.repository, branch))
    }

    #[pyo3(signature = (*, reparent=false))]
    fn delete(&self, py: Python<'_>, reparent: bool) -> PyResult<()> {
        let name = &self.branch.name;
        py.detach(|| match reparent {
            true => self.repository.delete_branch_reparenting(name),
            false => self.repository.delete_branch(name),
        })
        .map_err(raise)
    }

    fn __repr__(&self) -> String {
        format!("<zenith.Branch {:?} {}>", self.branch.name, self.branch.timeline)
    }
}
