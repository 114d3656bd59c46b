//! `zenith.Tag`.

use control_plane::{Repository, Tag};
use pyo3::prelude::*;

use crate::error::raise;
use crate::lsn::PyLsn;

/// A tag as it was when it was asked for.
#[pyclass(name = "Tag", module = "zenith", frozen)]
pub struct PyTag {
    repository: Repository,
    tag: Tag,
}

impl PyTag {
    /// The Python object for `tag` of `repository`.
    pub fn of(repository: &Repository, tag: Tag) -> PyTag {
        PyTag { repository: repository.clone(), tag }
    }

    /// The tag.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }
}

#[pymethods]
impl PyTag {
    #[getter]
    fn name(&self) -> &str {
        &self.tag.name
    }

    #[getter]
    fn branch(&self) -> Option<&str> {
        self.tag.branch.as_deref()
    }

    #[getter]
    fn timeline(&self) -> String {
        self.tag.timeline.to_string()
    }

    #[getter]
    fn lsn(&self) -> PyLsn {
        PyLsn(self.tag.lsn)
    }

    #[getter]
    fn created(&self) -> &str {
        &self.tag.created
    }

    fn delete(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.repository.delete_tag(&self.tag.name)).map_err(raise)
    }

    fn __repr__(&self) -> String {
        format!("<zenith.Tag {:?} {}>", self.tag.name, self.tag.lsn)
    }
}
