//! `zenith.Repository`.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_plane::{InitOptions, Outcome, Repository, StartOptions, StopMode};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::branch::PyBranch;
use crate::compute::PyCompute;
use crate::error::raise;
use crate::lsn::AnyLsn;
use crate::point::AnyPoint;
use crate::tag::PyTag;
use crate::verify::checked;

/// A repository; as a context manager, one whose page server runs.
#[pyclass(name = "Repository", module = "zenith", frozen)]
pub struct PyRepository {
    /// Held only to copy it out or to put a changed copy back, never while anything waits.
    state: Mutex<State>,
}

struct State {
    repository: Repository,
    /// How many `with` blocks of this object are open, and whether the outermost one started the
    /// page server, and so has to stop it.
    depth: usize,
    stop_at_exit: bool,
}

impl PyRepository {
    fn of(repository: Repository) -> PyRepository {
        PyRepository { state: Mutex::new(State { repository, depth: 0, stop_at_exit: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repository(&self) -> Repository {
        self.state().repository.clone()
    }

    fn start_server(&self, py: Python<'_>, port: Option<u16>) -> PyResult<Outcome> {
        let mut repository = self.repository();
        let outcome = py.detach(|| repository.start(&StartOptions { port })).map_err(raise)?;
        // It remembers the port that was chosen.
        self.state().repository = repository;
        Ok(outcome)
    }
}

fn stop_mode(immediate: bool) -> StopMode {
    if immediate { StopMode::Immediate } else { StopMode::Fast }
}

#[pymethods]
impl PyRepository {
    #[staticmethod]
    #[pyo3(signature = (path, *, pg_bin_dir=None))]
    fn init(py: Python<'_>, path: PathBuf, pg_bin_dir: Option<PathBuf>) -> PyResult<PyRepository> {
        let options = InitOptions { pg_bin_dir };
        py.detach(|| Repository::init(&path, &options, &mut |_| ()))
            .map(PyRepository::of)
            .map_err(raise)
    }

    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<PyRepository> {
        py.detach(|| Repository::open(&path)).map(PyRepository::of).map_err(raise)
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.repository().dir().to_owned()
    }

    #[getter]
    fn pid(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        let repository = self.repository();
        py.detach(|| repository.status()).map(|status| status.pid).map_err(raise)
    }

    #[getter]
    fn connstr(&self) -> PyResult<String> {
        self.repository().server_address().map(|address| address.tcp).map_err(raise)
    }

    #[getter]
    fn log(&self) -> PathBuf {
        self.repository().server_log()
    }

    /// Starts the page server; false if it ran already.
    #[pyo3(signature = (port=None))]
    fn start(&self, py: Python<'_>, port: Option<u16>) -> PyResult<bool> {
        self.start_server(py, port).map(|outcome| outcome == Outcome::Done)
    }

    /// Stops the page server; false if it did not run.
    #[pyo3(signature = (*, immediate=false))]
    fn stop(&self, py: Python<'_>, immediate: bool) -> PyResult<bool> {
        let repository = self.repository();
        py.detach(|| repository.stop(stop_mode(immediate)))
            .map(|outcome| outcome == Outcome::Done)
            .map_err(raise)
    }

    #[pyo3(signature = (*, immediate=false))]
    fn restart(&self, py: Python<'_>, immediate: bool) -> PyResult<()> {
        self.stop(py, immediate)?;
        self.start(py, None).map(|_| ())
    }

    /// What the page server says of itself; empty if it does not run.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let repository = self.repository();
        let status = py.detach(|| repository.status()).map_err(raise)?;
        let facts = PyDict::new(py);
        for (name, value) in status.facts {
            facts.set_item(name, value)?;
        }
        Ok(facts)
    }

    fn branches(&self, py: Python<'_>) -> PyResult<Vec<PyBranch>> {
        let repository = self.repository();
        let branches = py.detach(|| repository.branches()).map_err(raise)?;
        Ok(branches.into_iter().map(|b| PyBranch::of(&repository, b)).collect())
    }

    fn branch(&self, py: Python<'_>, name: &str) -> PyResult<PyBranch> {
        let repository = self.repository();
        let branch = py.detach(|| repository.branch(name)).map_err(raise)?;
        Ok(PyBranch::of(&repository, branch))
    }

    #[pyo3(signature = (name, at=None, *, expires_in=None))]
    fn create_branch(
        &self,
        py: Python<'_>,
        name: &str,
        at: Option<AnyPoint>,
        expires_in: Option<Duration>,
    ) -> PyResult<PyBranch> {
        let repository = self.repository();
        let point = at.map(|at| at.0);
        let branch = py
            .detach(|| repository.create_branch_for(name, point.as_ref(), expires_in))
            .map_err(raise)?;
        Ok(PyBranch::of(&repository, branch))
    }

    fn tags(&self, py: Python<'_>) -> PyResult<Vec<PyTag>> {
        let repository = self.repository();
        let tags = py.detach(|| repository.tags()).map_err(raise)?;
        Ok(tags.into_iter().map(|tag| PyTag::of(&repository, tag)).collect())
    }

    fn tag(&self, py: Python<'_>, name: &str) -> PyResult<PyTag> {
        let repository = self.repository();
        let tag = py.detach(|| repository.tag(name)).map_err(raise)?;
        Ok(PyTag::of(&repository, tag))
    }

    #[pyo3(signature = (name, at=None))]
    fn create_tag(&self, py: Python<'_>, name: &str, at: Option<AnyPoint>) -> PyResult<PyTag> {
        let repository = self.repository();
        let point = at.map(|at| at.0);
        let tag = py.detach(|| repository.create_tag(name, point.as_ref())).map_err(raise)?;
        Ok(PyTag::of(&repository, tag))
    }

    fn delete_tag(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let repository = self.repository();
        py.detach(|| repository.delete_tag(name)).map_err(raise)
    }

    fn computes(&self, py: Python<'_>) -> PyResult<Vec<PyCompute>> {
        let repository = self.repository();
        let computes = py.detach(|| repository.computes()).map_err(raise)?;
        Ok(computes.into_iter().map(PyCompute::of).collect())
    }

    fn compute(&self, py: Python<'_>, name: &str) -> PyResult<PyCompute> {
        let repository = self.repository();
        py.detach(|| repository.compute(name)).map(PyCompute::of).map_err(raise)
    }

    /// Every page at a point against stock PostgreSQL.
    #[pyo3(signature = (point=None, *, deep=false))]
    fn verify(&self, py: Python<'_>, point: Option<AnyPoint>, deep: bool) -> PyResult<Py<PyAny>> {
        let repository = self.repository();
        let point = point.map(|point| point.0);
        checked(py, |watcher| match deep {
            true => repository.verify_deep(point.as_ref(), watcher),
            false => repository.verify(point.as_ref(), watcher),
        })
    }

    /// Every file of a branch, read.
    #[pyo3(signature = (branch=None))]
    fn verify_files(&self, py: Python<'_>, branch: Option<&str>) -> PyResult<Py<PyAny>> {
        let repository = self.repository();
        checked(py, |watcher| repository.verify_files(branch, watcher))
    }

    /// Pages against the images in WAL records.
    #[pyo3(signature = (point=None, *, since=None))]
    fn verify_records(
        &self,
        py: Python<'_>,
        point: Option<AnyPoint>,
        since: Option<AnyLsn>,
    ) -> PyResult<Py<PyAny>> {
        let repository = self.repository();
        let (point, since) = (point.map(|point| point.0), since.map(|since| since.0));
        checked(py, |watcher| repository.verify_records(point.as_ref(), since, watcher))
    }

    fn __enter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let this = slf.get();
        let outcome = this.start_server(slf.py(), None)?;
        let mut state = this.state();
        state.depth += 1;
        state.stop_at_exit |= outcome == Outcome::Done;
        drop(state);
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: Bound<'_, PyAny>) -> PyResult<()> {
        let stop = {
            let mut state = self.state();
            state.depth = state.depth.saturating_sub(1);
            state.depth == 0 && std::mem::take(&mut state.stop_at_exit)
        };
        if stop { self.stop(py, false).map(|_| ()) } else { Ok(()) }
    }

    fn __repr__(&self) -> String {
        format!("<zenith.Repository {:?}>", self.repository().dir())
    }
}
