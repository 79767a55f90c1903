//! A sample as a dictionary: `__key__`, and each file by its extension.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use granary_loader::Sample;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

use crate::array::Array;
use crate::error::OrRaise;
use crate::view::View;

/// An extension, and it as Python's string.
type Name = (Box<[u8]>, Py<PyString>);

/// Extensions met so far, as Python's strings: a data set has a few, and each is in every sample. More than this are made anew.
const NAMES_MAX: usize = 64;
/// Guards the list; held to look one up. Never waited for with a Python object's help, so the interpreter's lock cannot be in the way.
static NAMES: Mutex<Vec<Name>> = Mutex::new(Vec::new());
static KEY: PyOnceLock<Py<PyString>> = PyOnceLock::new();

/// Bytes of a path as Python's own functions have them: UTF-8, and what is not that in surrogates (`os.fsencode` gives it back).
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => OsStr::from_bytes(bytes).into_pyobject(py).map_err(PyErr::from),
    }
}

fn name<'py>(py: Python<'py>, extension: &[u8]) -> PyResult<Bound<'py, PyString>> {
    {
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = names.iter().find(|(bytes, _)| bytes[..] == *extension) {
            return Ok(known.bind(py).clone());
        }
    }
    let made = text(py, extension)?;
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if names.len() < NAMES_MAX {
        names.push((extension.into(), made.clone().unbind()));
    }
    Ok(made)
}

/// A sample that is lent to Python, with its arrays.
pub struct Lent {
    sample: Sample,
    /// Of each file what was decoded of it.
    arrays: Box<[Option<Array>]>,
}

/// A file as Python has it.
pub enum Given<'a> {
    Bytes(Bytes),
    Array(&'a Array),
}

impl Given<'_> {
    pub fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Given::Bytes(bytes) => Ok(Bound::new(py, View::new(bytes.clone()))?.into_any()),
            Given::Array(array) => Ok(Bound::new(py, (*array).clone())?.into_any()),
        }
    }
}

impl Lent {
    pub fn new(mut sample: Sample) -> Lent {
        let arrays = (0..sample.len()).map(|at| sample.take_array(at).map(Array::of)).collect();
        Lent { sample, arrays }
    }

    pub fn sample(&self) -> &Sample {
        &self.sample
    }

    /// Raises: `CorruptError`.
    pub fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        text(py, self.sample.key().or_raise(py)?)
    }

    /// Raises: `CorruptError`.
    pub fn file(&self, py: Python<'_>, at: usize) -> PyResult<Given<'_>> {
        match &self.arrays[at] {
            Some(array) => Ok(Given::Array(array)),
            None => self.sample.bytes(at).or_raise(py).map(Given::Bytes),
        }
    }

    /// Raises: `CorruptError`.
    pub fn dictionary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let key = KEY.get_or_init(py, || PyString::intern(py, "__key__").unbind()).bind(py);
        let dictionary = PyDict::new(py);
        dictionary.set_item(key, self.key(py)?)?;
        for at in 0..self.sample.len() {
            let extension = name(py, self.sample.member(at).or_raise(py)?.extension)?;
            dictionary.set_item(extension, self.file(py, at)?.to_python(py)?)?;
        }
        Ok(dictionary)
    }
}
