//! `zenith._native.PageMask`, for tests that compare pages.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres_formats::{BlockNumber, PageImage};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use slog::{Discard, Logger, o};
use walredo_pool::{Account, MaskKind, WalRedoConfig, WalRedoPool};

/// How long one mask may take, the start of the process included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// PostgreSQL's own masks: a page without what its WAL does not promise.
#[pyclass(name = "PageMask", module = "zenith._native", frozen)]
pub struct PyPageMask {
    /// Emptied when the `with` block ends. Never locked by a thread that holds the GIL.
    pool: Mutex<Option<WalRedoPool>>,
}

#[pymethods]
impl PyPageMask {
    #[new]
    #[pyo3(signature = (pg_bin_dir, module, work_dir, control_file, account=None))]
    fn new(
        py: Python<'_>,
        pg_bin_dir: PathBuf,
        module: PathBuf,
        work_dir: PathBuf,
        control_file: Vec<u8>,
        account: Option<(u32, u32)>,
    ) -> PyResult<PyPageMask> {
        let config = WalRedoConfig {
            postgres_bin_dir: pg_bin_dir,
            module_path: module,
            libraries: Vec::new(),
            work_dir,
            control_file,
            processes: 1,
            account: account.map(|(uid, gid)| Account { uid, gid }),
            request_timeout: TIMEOUT,
        };
        let pool = py
            .detach(|| WalRedoPool::new(config, Logger::root(Discard, o!())))
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyPageMask { pool: Mutex::new(Some(pool)) })
    }

    /// The page as the resource manager masks it; without one, only LSN and checksum are masked.
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        manager: Option<u8>,
        page: &[u8],
        block: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let page = PageImage::from_slice(page)
            .ok_or_else(|| PyValueError::new_err("a page has 8192 bytes"))?;
        let kind = manager.map_or(MaskKind::PageHeader, MaskKind::ResourceManager);
        let masked = py.detach(|| {
            let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            let pool = pool.as_ref().ok_or_else(|| PyRuntimeError::new_err("it is closed"))?;
            pool.mask_page(kind, &page, BlockNumber(block))
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))
        })?;
        Ok(PyBytes::new(py, &masked[..]))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Ends its process.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: Bound<'_, PyAny>) {
        py.detach(|| drop(self.pool.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}
