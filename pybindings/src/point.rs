//! What Python code may give where a moment in a branch's history is meant.

use std::fmt::Display;
use std::str::FromStr;

use control_plane::{BranchName, Point};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::branch::PyBranch;
use crate::error::exceptions::InvalidArgument;
use crate::lsn::AnyLsn;
use crate::tag::PyTag;

/// A point as on the command line (`"main@0/16B3748"`), a pair of a branch and an LSN, a tag, or a
/// branch, which means its end.
pub struct AnyPoint(pub Point);

impl<'py> FromPyObject<'_, 'py> for AnyPoint {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<AnyPoint> {
        if let Ok(branch) = value.cast::<PyBranch>() {
            return Ok(AnyPoint(Point::end_of(branch.get().name())));
        }
        if let Ok(tag) = value.cast::<PyTag>() {
            return Ok(AnyPoint(Point::end_of(&tag.get().tag().name)));
        }
        if let Ok(pair) = value.cast::<PyTuple>() {
            let (branch, lsn): (Bound<'_, PyAny>, AnyLsn) = pair.extract()?;
            let name: BranchName = match branch.cast::<PyBranch>() {
                Ok(branch) => branch.get().name().clone(),
                Err(_) => parse(&branch.extract::<String>()?)?,
            };
            return Ok(AnyPoint(Point::at_lsn(name, lsn.0)));
        }
        parse(&value.cast::<PyString>()?.to_cow()?).map(AnyPoint)
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> PyResult<T> {
    text.parse().map_err(|error: T::Err| InvalidArgument::new_err(error.to_string()))
}
