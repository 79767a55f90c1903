//! Errors as Python exceptions: `granary.errors` names the classes, the core's message stays as it is.

use granary_core::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static EXCEPTION_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception of this error's kind.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let made = EXCEPTION_OF
        .get_or_try_init(py, || Ok::<_, PyErr>(py.import("granary.errors")?.getattr("_of")?.unbind()))
        .and_then(|of| of.call1(py, (format!("{:?}", error.kind()), error.errno(), error.to_string())));
    match made {
        Ok(value) => PyErr::from_value(value.into_bound(py)),
        Err(e) => e,
    }
}

/// `result.or_raise(py)?`
pub trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for granary_core::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|e| exception(py, &e))
    }
}
