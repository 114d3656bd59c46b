//! The Python exceptions, which are defined in `python/zenith/exceptions.py`.

/// Names of the classes, importable from Rust on first use.
pub mod exceptions {
    pyo3::import_exception!(zenith.exceptions, InvalidLsn);
}
