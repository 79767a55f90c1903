//! `Batch`: what one step is given. Its samples become dictionaries one by one, when they are looked at.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::{PyIndexError, PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice, PyString};

use crate::error::OrRaise;
use crate::sample::{self, text};
use crate::view::View;

/// A sequence of samples.
#[pyclass(frozen, sequence, module = "granary")]
pub struct Batch {
    batch: granary_loader::Batch,
}

impl Batch {
    pub fn new(batch: granary_loader::Batch) -> Batch {
        Batch { batch }
    }
}

#[pymethods]
impl Batch {
    /// The epoch it is of.
    #[getter]
    fn epoch(&self) -> u64 {
        self.batch.epoch
    }

    /// Its number in the epoch, from 0: the step.
    #[getter]
    fn number(&self) -> u64 {
        self.batch.number
    }

    /// So many samples at its end were given before, to fill it.
    #[getter]
    fn padding(&self) -> u32 {
        self.batch.padding
    }

    /// Samples that could not be read and are missing here.
    #[getter]
    fn skipped(&self) -> u32 {
        self.batch.skipped
    }

    /// Samples that stand in for some that could not be read.
    #[getter]
    fn substituted(&self) -> u32 {
        self.batch.substituted
    }

    fn __len__(&self) -> usize {
        self.batch.samples.len()
    }

    /// A sample, or a list of them for a slice.
    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let samples = &self.batch.samples;
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(samples.len() as isize)?;
            let at = |i: usize| (range.start + range.step * i as isize) as usize;
            let picked = (0..range.slicelength).map(|i| sample::dictionary(py, &samples[at(i)]));
            return Ok(PyList::new(py, picked.collect::<PyResult<Vec<Bound<'py, PyDict>>>>()?)?.into_any());
        }
        let Ok(given) = index.extract::<isize>() else {
            return Err(PyTypeError::new_err("a batch's index is a number or a slice"));
        };
        let at = if given < 0 { given + samples.len() as isize } else { given };
        match usize::try_from(at).ok().and_then(|at| samples.get(at)) {
            Some(sample) => Ok(sample::dictionary(py, sample)?.into_any()),
            None => {
                let count = samples.len();
                Err(PyIndexError::new_err(format!(
                    "the batch has {count} samples; there is no sample {given}"
                )))
            }
        }
    }

    fn __iter__(slf: Py<Batch>) -> BatchSamples {
        BatchSamples { batch: slf, next: AtomicUsize::new(0) }
    }

    /// The samples' keys.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let keys = self.batch.samples.iter().map(|sample| text(py, sample.key().or_raise(py)?));
        PyList::new(py, keys.collect::<PyResult<Vec<Bound<'py, PyString>>>>()?)
    }

    /// The samples' numbers in their data set.
    fn numbers(&self) -> Vec<u64> {
        self.batch.samples.iter().map(|sample| sample.number()).collect()
    }

    /// Which of the loader's data sets each sample is of.
    fn sources(&self) -> Vec<u32> {
        self.batch.samples.iter().map(|sample| sample.source()).collect()
    }

    /// The files of one extension, without a dictionary for each sample.
    fn column<'py>(&self, py: Python<'py>, extension: &str) -> PyResult<Bound<'py, PyList>> {
        let files = self.batch.samples.iter().map(|sample| match sample::file(py, sample, extension)? {
            Some(view) => Bound::new(py, view),
            None => {
                let key = text(py, sample.key().or_raise(py)?)?;
                Err(PyKeyError::new_err(format!("sample {key} has no file .{extension}")))
            }
        });
        PyList::new(py, files.collect::<PyResult<Vec<Bound<'py, View>>>>()?)
    }

    fn __repr__(&self) -> String {
        let granary_loader::Batch { epoch, number, samples, .. } = &self.batch;
        format!("<granary.Batch {number} of epoch {epoch}, {} samples>", samples.len())
    }
}

#[pyclass(frozen, module = "granary._granary")]
pub struct BatchSamples {
    batch: Py<Batch>,
    next: AtomicUsize,
}

#[pymethods]
impl BatchSamples {
    fn __iter__(slf: Py<BatchSamples>) -> Py<BatchSamples> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let samples = &self.batch.get().batch.samples;
        match samples.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            Some(sample) => sample::dictionary(py, sample).map(Some),
            None => Ok(None),
        }
    }

    fn __length_hint__(&self) -> usize {
        self.batch.get().batch.samples.len().saturating_sub(self.next.load(Ordering::Relaxed))
    }
}
