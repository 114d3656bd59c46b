//! Errors of the crates below as Python exceptions.
//!
//! The classes are defined in `python/zenith/exceptions.py`, where Python's own tools find them.

use control_plane::Error;

use pyo3::prelude::*;

/// The classes, imported on first use.
pub mod exceptions {
    pyo3::import_exception!(zenith.exceptions, AlreadyExists);
    pyo3::import_exception!(zenith.exceptions, BelowHorizon);
    pyo3::import_exception!(zenith.exceptions, Conflict);
    pyo3::import_exception!(zenith.exceptions, ConnectionFailed);
    pyo3::import_exception!(zenith.exceptions, Corrupt);
    pyo3::import_exception!(zenith.exceptions, InvalidArgument);
    pyo3::import_exception!(zenith.exceptions, InvalidLsn);
    pyo3::import_exception!(zenith.exceptions, LsnTimeout);
    pyo3::import_exception!(zenith.exceptions, NotFound);
    pyo3::import_exception!(zenith.exceptions, PageServerError);
    pyo3::import_exception!(zenith.exceptions, PageServerNotRunning);
    pyo3::import_exception!(zenith.exceptions, ProgramFailed);
    pyo3::import_exception!(zenith.exceptions, QueryFailed);
    pyo3::import_exception!(zenith.exceptions, SetupError);
    pyo3::import_exception!(zenith.exceptions, SystemFailed);
    pyo3::import_exception!(zenith.exceptions, Timeout);
}

use exceptions::*;

/// The exception for an error of the control plane. Needs the GIL only when it is looked at.
pub fn raise(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::InvalidArgument(_) => InvalidArgument::new_err(text),
        Error::NotFound { .. } => NotFound::new_err(text),
        Error::AlreadyExists { .. } => AlreadyExists::new_err(text),
        Error::Conflict(_) => Conflict::new_err(text),
        Error::Environment(_) => SetupError::new_err(text),
        Error::PageServerNotRunning { .. } => PageServerNotRunning::new_err(text),
        Error::Connection { .. } => ConnectionFailed::new_err(text),
        Error::PageServer { sqlstate, .. } => page_server_error(text, &sqlstate),
        Error::Timeout(_) => Timeout::new_err(text),
        Error::Program { .. } => ProgramFailed::new_err(text),
        Error::Corrupt { .. } => Corrupt::new_err(text),
        Error::Io { .. } => SystemFailed::new_err(text),
        _ => PyErr::new::<pyo3::exceptions::PyRuntimeError, _>(text),
    }
}

fn page_server_error(text: String, sqlstate: &str) -> PyErr {
    Python::attach(|py| {
        let error = PageServerError::new_err(text);
        match error.value(py).setattr("sqlstate", sqlstate) {
            Ok(()) => error,
            Err(failed) => failed,
        }
    })
}
