//! Checks: their results as Python's own values, with the keys that `zenith verify -o json` prints.

use std::sync::atomic::{AtomicBool, Ordering};

use control_plane::{Error, Watcher};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde::Serialize;
use serde_json::Value;

use crate::error::raise;

/// Runs a check, which Ctrl-C interrupts, and gives its result.
pub fn checked<T: Serialize + Send>(
    py: Python<'_>,
    check: impl FnOnce(&mut Watcher<'_>) -> Result<T, Error> + Send,
) -> PyResult<Py<PyAny>> {
    let report = py.detach(|| {
        let interrupted = AtomicBool::new(false);
        let mut signal = None;
        let mut progress = |_| {
            if let Err(error) = Python::attach(|py| py.check_signals()) {
                signal = Some(error);
                interrupted.store(true, Ordering::Relaxed);
            }
        };
        let checked = check(&mut Watcher { progress: &mut progress, interrupted: &interrupted });
        match signal {
            Some(signal) => Err(signal),
            None => checked.map_err(raise),
        }
    })?;
    to_python(py, &report)
}

/// What `-o json` prints of a result, as Python's own values.
pub fn to_python(py: Python<'_>, result: &impl Serialize) -> PyResult<Py<PyAny>> {
    let value =
        serde_json::to_value(result).map_err(|error| PyValueError::new_err(error.to_string()))?;
    value_to_python(py, value).map(Bound::unbind)
}

fn value_to_python(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => value.into_pyobject(py)?.to_owned().into_any(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_pyobject(py)?.into_any(),
            (_, Some(number)) => number.into_pyobject(py)?.into_any(),
            _ => number.as_f64().unwrap_or(f64::NAN).into_pyobject(py)?.into_any(),
        },
        Value::String(text) => text.into_pyobject(py)?.into_any(),
        Value::Array(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(value_to_python(py, value)?)?;
            }
            list.into_any()
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (key, value) in fields {
                dict.set_item(key, value_to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
