//! `zenith.Lsn`.

use std::hash::{DefaultHasher, Hash, Hasher};

use postgres_formats::Lsn;
use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use crate::error::exceptions::InvalidLsn;

/// A position in the write-ahead log, immutable and ordered.
#[pyclass(name = "Lsn", module = "zenith", frozen, weakref)]
#[derive(Clone, Copy)]
pub struct PyLsn(pub Lsn);

/// Whatever Python code may give where a position is meant: an `Lsn`, its text, or its number.
#[derive(Clone, Copy)]
pub struct AnyLsn(pub Lsn);

impl<'py> FromPyObject<'_, 'py> for AnyLsn {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<AnyLsn> {
        if let Ok(lsn) = value.cast::<PyLsn>() {
            Ok(AnyLsn(lsn.get().0))
        } else if let Ok(text) = value.cast::<PyString>() {
            let parsed = text.to_cow()?.trim().parse();
            parsed.map(AnyLsn).map_err(|e| InvalidLsn::new_err(format!("{e}")))
        } else if let Ok(number) = value.extract::<u64>() {
            Ok(AnyLsn(Lsn::new(number)))
        } else if value.is_instance_of::<PyInt>() {
            Err(PyOverflowError::new_err("an LSN is a number from 0 to 2**64 - 1"))
        } else {
            let kind = value.get_type().qualname()?;
            Err(PyTypeError::new_err(format!("expected Lsn, str or int, not {kind}")))
        }
    }
}

#[pymethods]
impl PyLsn {
    #[new]
    fn new(value: AnyLsn) -> PyLsn {
        PyLsn(value.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Lsn('{}')", self.0)
    }

    fn __int__(&self) -> u64 {
        self.0.as_u64()
    }

    fn __bool__(&self) -> bool {
        self.0.is_valid()
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        match other.cast::<PyLsn>() {
            Ok(other) => {
                let holds = op.matches(self.0.cmp(&other.get().0));
                Ok(holds.into_pyobject(py)?.to_owned().into_any().unbind())
            }
            Err(_) => Ok(py.NotImplemented()),
        }
    }

    fn __add__(&self, bytes: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match Offset::of(bytes)? {
            Some(offset) => object(bytes.py(), offset.add_to(self.0)?),
            None => Ok(bytes.py().NotImplemented()),
        }
    }

    fn __radd__(&self, bytes: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__add__(bytes)
    }

    /// `Lsn - Lsn` is a number of bytes, negative if the right one is later; `Lsn - int` an `Lsn`.
    fn __sub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = other.py();
        if let Ok(other) = other.cast::<PyLsn>() {
            let bytes = i128::from(self.0.as_u64()) - i128::from(other.get().0.as_u64());
            return Ok(bytes.into_pyobject(py)?.into_any().unbind());
        }
        match Offset::of(other)? {
            Some(Offset(bytes)) => object(py, Offset(-bytes).add_to(self.0)?),
            None => Ok(py.NotImplemented()),
        }
    }

    /// What pickle and copy make it anew from.
    fn __getnewargs__(&self) -> (u64,) {
        (self.0.as_u64(),)
    }
}

fn object(py: Python<'_>, lsn: Lsn) -> PyResult<Py<PyAny>> {
    Ok(PyLsn(lsn).into_pyobject(py)?.into_any().unbind())
}

/// A signed number of bytes.
struct Offset(i128);

impl Offset {
    /// `None` if `value` is no integer, so that Python may ask the other operand.
    fn of(value: &Bound<'_, PyAny>) -> PyResult<Option<Offset>> {
        if !value.is_instance_of::<PyInt>() {
            return Ok(None);
        }
        // Halved, so that no sum of one with a position can overflow.
        let bytes: i128 = value.extract().map_err(|_| out_of_range())?;
        Ok(Some(Offset(bytes.clamp(i128::MIN / 2, i128::MAX / 2))))
    }

    fn add_to(&self, lsn: Lsn) -> PyResult<Lsn> {
        u64::try_from(i128::from(lsn.as_u64()) + self.0).map(Lsn::new).map_err(|_| out_of_range())
    }
}

fn out_of_range() -> PyErr {
    PyOverflowError::new_err("the result is no LSN: not within 64 bits")
}
