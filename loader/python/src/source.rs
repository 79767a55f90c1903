//! `Source`: an open data set. The package's `Dataset` is what users have.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use granary_loader::{Decode, SourceOptions};
use granary_packer::place;
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::error::OrRaise;
use crate::sample::Lent;

#[pyclass(frozen, module = "granary._granary")]
pub struct Source {
    source: granary_loader::Source,
}

impl Source {
    pub fn source(&self) -> &granary_loader::Source {
        &self.source
    }

    /// Python's numbers: from the end when negative.
    fn number(&self, at: i64) -> PyResult<u64> {
        let length = self.source.len();
        let number = if at < 0 { length.checked_add_signed(at) } else { Some(at as u64) };
        number.filter(|&number| number < length).ok_or_else(|| {
            PyIndexError::new_err(format!(
                "{} has {length} samples; there is no sample {at}",
                self.source.name()
            ))
        })
    }
}

#[pymethods]
impl Source {
    #[new]
    #[pyo3(signature = (url, *, version = None, files = None, having = None, select = None, lengths = None, index_dir = None, threads = None, decode = None))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn new(
        py: Python<'_>,
        url: &str,
        version: Option<u64>,
        files: Option<Vec<String>>,
        having: Option<Vec<String>>,
        select: Option<Vec<u64>>,
        lengths: Option<String>,
        index_dir: Option<PathBuf>,
        threads: Option<usize>,
        decode: Option<&str>,
    ) -> PyResult<Source> {
        let decode = decode.map(Decode::from_json).transpose().or_raise(py)?;
        let options = SourceOptions {
            version,
            place: place::Options::from_env(),
            index_folder: index_dir,
            select,
            having: having.unwrap_or_default(),
            lengths,
            members: files.unwrap_or_default(),
            threads: threads.unwrap_or(0),
            socket: std::env::var_os("GRANARY_SOCKET").map(PathBuf::from),
        };
        let source = py.detach(|| granary_loader::Source::open(url, options)).or_raise(py)?;
        Ok(Source { source: source.with_decode(decode) })
    }

    #[getter]
    fn version(&self) -> u64 {
        self.source.version()
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.source.len()).unwrap_or(usize::MAX)
    }

    /// A sample by number, or a file by path.
    fn get<'py>(&self, py: Python<'py>, at: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(path) = at.cast::<PyString>() {
            let path: std::ffi::OsString = path.extract()?;
            let (sample, file) = py.detach(|| self.source.file(path.as_bytes())).or_raise(py)?;
            return Lent::new(sample).file(py, file)?.to_python(py);
        }
        let Ok(at) = at.extract::<i64>() else {
            return Err(PyTypeError::new_err(
                "a data set's index is a number, a slice, or the path of a file",
            ));
        };
        let number = self.number(at)?;
        let sample = py.detach(|| self.source.sample(number)).or_raise(py)?;
        Ok(Lent::new(sample).dictionary(py)?.into_any())
    }

    fn read_many<'py>(&self, py: Python<'py>, indices: Vec<i64>) -> PyResult<Bound<'py, PyList>> {
        let numbers = indices.into_iter().map(|at| self.number(at)).collect::<PyResult<Vec<u64>>>()?;
        let samples = py.detach(|| self.source.read_many(&numbers)).or_raise(py)?;
        let made = samples.into_iter().map(|sample| Lent::new(sample).dictionary(py));
        PyList::new(py, made.collect::<PyResult<Vec<Bound<'py, PyDict>>>>()?)
    }

    fn metrics(&self, py: Python<'_>) -> String {
        py.detach(|| self.source.metrics())
    }
}
