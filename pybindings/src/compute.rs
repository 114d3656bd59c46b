//! `zenith.Compute`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control_plane::{Compute, ComputeState, Outcome, StopMode};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::exceptions::{QueryFailed, Timeout};
use crate::error::raise;
use crate::hydrate::hydrate;
use crate::lsn::{AnyLsn, PyLsn};
use crate::verify::checked;

/// The database that `dsn` and `psql` mean when none is named.
const DATABASE: &str = "postgres";
/// How long the kernel may take to remove a killed process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const KILL_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A stock PostgreSQL server on a branch; as a context manager, one that runs.
#[pyclass(name = "Compute", module = "zenith", frozen)]
pub struct PyCompute {
    compute: Compute,
}

impl PyCompute {
    /// The Python object for `compute`.
    pub fn of(compute: Compute) -> PyCompute {
        PyCompute { compute }
    }
}

#[pymethods]
impl PyCompute {
    #[getter]
    fn name(&self) -> &str {
        self.compute.name()
    }

    #[getter]
    fn branch(&self) -> &str {
        self.compute.branch()
    }

    #[getter]
    fn timeline(&self) -> String {
        self.compute.timeline().to_string()
    }

    #[getter]
    fn base_lsn(&self) -> PyLsn {
        PyLsn(self.compute.base_lsn())
    }

    #[getter]
    fn mode(&self) -> String {
        self.compute.mode().to_string()
    }

    #[getter]
    fn durability(&self) -> String {
        self.compute.durability().to_string()
    }

    #[getter]
    fn port(&self) -> u16 {
        self.compute.port()
    }

    #[getter]
    fn dsn(&self) -> String {
        self.compute.connstr(DATABASE)
    }

    #[getter]
    fn pgdata(&self) -> PathBuf {
        self.compute.pgdata()
    }

    #[getter]
    fn log(&self) -> PathBuf {
        self.compute.log()
    }

    #[getter]
    fn pid(&self, py: Python<'_>) -> Option<i32> {
        py.detach(|| self.compute.status().pid)
    }

    #[getter]
    fn state(&self, py: Python<'_>) -> String {
        py.detach(|| self.compute.status().state.to_string())
    }

    /// Whether another compute writes its branch by now.
    #[getter]
    fn fenced(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.compute.is_fenced()).map_err(raise)
    }

    /// Starts it; false if it ran already.
    fn start(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.compute.start()).map(|outcome| outcome == Outcome::Done).map_err(raise)
    }

    /// Stops it; false if it did not run.
    #[pyo3(signature = (*, immediate=false))]
    fn stop(&self, py: Python<'_>, immediate: bool) -> PyResult<bool> {
        let mode = if immediate { StopMode::Immediate } else { StopMode::Fast };
        py.detach(|| self.compute.stop(mode)).map(|outcome| outcome == Outcome::Done).map_err(raise)
    }

    #[pyo3(signature = (*, immediate=false))]
    fn restart(&self, py: Python<'_>, immediate: bool) -> PyResult<()> {
        self.stop(py, immediate)?;
        self.start(py).map(|_| ())
    }

    /// Ends the postmaster as the kernel would for lack of memory, with signal 9. Its children
    /// notice by themselves.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        let Some(pid) = self.pid(py) else {
            return Ok(());
        };
        py.import("os")?.call_method1("kill", (pid, 9))?;
        let deadline = Instant::now() + KILL_TIMEOUT;
        let gone = py.detach(|| {
            while self.compute.status().state != ComputeState::Stopped {
                if Instant::now() >= deadline {
                    return false;
                }
                std::thread::sleep(KILL_POLL_INTERVAL);
            }
            true
        });
        if gone { Ok(()) } else { Err(Timeout::new_err(format!("process {pid} cannot be killed"))) }
    }

    /// Moves its base LSN forward: to `lsn`, or as far as the page server has received its WAL. Gives
    /// the one that it has now.
    #[pyo3(signature = (lsn=None))]
    fn advance_base(&self, py: Python<'_>, lsn: Option<AnyLsn>) -> PyResult<PyLsn> {
        let target = lsn.map(|lsn| lsn.0);
        let advance = py.detach(|| self.compute.advance_base(target)).map_err(raise)?;
        Ok(PyLsn(advance.to))
    }

    /// Fetches everything that it does not have yet.
    #[pyo3(signature = (progress=None))]
    fn hydrate(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        hydrate(py, &self.compute, progress)
    }

    /// Stops it at once and removes its directory.
    fn destroy(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.compute.destroy()).map_err(raise)
    }

    /// Runs statements with psql; returns what they print, unaligned, without its last newline.
    #[pyo3(signature = (sql, *, dbname=DATABASE, user=None))]
    fn psql(
        &self,
        py: Python<'_>,
        sql: &str,
        dbname: &str,
        user: Option<&str>,
    ) -> PyResult<String> {
        let postgres = py.detach(|| self.compute.repository().postgres()).map_err(raise)?;
        let mut command = Command::new(postgres.program("psql"));
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        command
            .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"])
            .args(["--set", "ON_ERROR_STOP=1", "--command", sql])
            .arg("--dbname")
            .arg(self.compute.connstr(dbname))
            .stdin(Stdio::null());
        if let Some(user) = user {
            command.arg("--username").arg(user);
        }
        let output = py.detach(|| command.output())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(QueryFailed::new_err(said.trim_end().to_owned()));
        }
        let text = String::from_utf8(output.stdout)?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    /// A psycopg connection.
    #[pyo3(signature = (*, dbname=DATABASE, **options))]
    fn connect<'py>(
        &self,
        py: Python<'py>,
        dbname: &str,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let psycopg = py.import("psycopg")?;
        psycopg.call_method("connect", (self.compute.connstr(dbname),), options)
    }

    /// Its data directory against what the page server has.
    fn verify(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        checked(py, |watcher| self.compute.verify(watcher))
    }

    fn __enter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().start(slf.py())?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: Bound<'_, PyAny>) -> PyResult<()> {
        self.stop(py, false).map(|_| ())
    }

    fn __repr__(&self) -> String {
        format!("<zenith.Compute {:?} on port {}>", self.compute.name(), self.compute.port())
    }
}
