//! `Compute.hydrate`.

use std::sync::{Arc, Mutex, PoisonError};

use control_plane::{Compute, HydrateProgress};
use pyo3::prelude::*;
use serde_json::json;

use crate::error::raise;
use crate::verify::to_python;

/// The exception of Python's that ends it.
type Raised = Arc<Mutex<Option<PyErr>>>;

/// Fetches everything that `compute` does not have yet. `progress` is called with the bytes that have been
/// fetched and those that were absent at first.
pub fn hydrate(
    py: Python<'_>,
    compute: &Compute,
    progress: Option<Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    let raised = Raised::default();
    let is_canceled = {
        let raised = raised.clone();
        move || {
            keep(&raised, Python::attach(|py| py.check_signals()));
            is_set(&raised)
        }
    };
    let hydrated = py.detach(|| {
        let tell = &mut |HydrateProgress { done, total }| {
            if let Some(progress) = &progress {
                keep(&raised, Python::attach(|py| progress.call1(py, (done, total)).map(drop)));
            }
        };
        compute.hydrate(tell, is_canceled)
    });
    if let Some(error) = raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    let hydrated = hydrated.map_err(raise)?;
    let value = json!({ "fetched_bytes": hydrated.fetched, "left_bytes": hydrated.left });
    to_python(py, &value)
}

fn keep(raised: &Raised, result: PyResult<()>) {
    if let Err(error) = result {
        raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

fn is_set(raised: &Raised) -> bool {
    raised.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}
