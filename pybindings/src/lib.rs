//! The extension module `zenith._native` behind the Python package `zenith`.
//!
//! Only registers; each class has a file of its own. See README.md.

mod error;
mod lsn;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::lsn::PyLsn;
}
