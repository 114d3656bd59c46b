//! The extension module `zenith._native` behind the Python package `zenith`.
//!
//! Only registers; each class has a file of its own. See README.md.

mod branch;
mod compute;
mod error;
mod hydrate;
mod lsn;
mod pages;
mod point;
mod repository;
mod tag;
mod verify;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::branch::PyBranch;
    #[pymodule_export]
    use crate::compute::PyCompute;
    #[pymodule_export]
    use crate::lsn::PyLsn;
    #[pymodule_export]
    use crate::repository::PyRepository;
    #[pymodule_export]
    use crate::tag::PyTag;
}
