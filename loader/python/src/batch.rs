//! `Batch`: what one step is given. Its samples become dictionaries one by one, when they are looked at.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use pyo3::exceptions::{PyIndexError, PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice, PyString};

use crate::array::Array;
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

    /// Each sample's file of this extension. Raises: `KeyError` when one has none.
    fn files(&self, py: Python<'_>, extension: &str) -> PyResult<Vec<Bytes>> {
        let file = |sample: &granary_loader::Sample| match sample.find(extension.as_bytes()).or_raise(py)? {
            Some(at) => sample.bytes(at).or_raise(py),
            None => {
                let key = text(py, sample.key().or_raise(py)?)?;
                Err(PyKeyError::new_err(format!("sample {key} has no file .{extension}")))
            }
        };
        self.batch.samples.iter().map(file).collect()
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
        let views = self.files(py, extension)?.into_iter().map(|bytes| Bound::new(py, View::new(bytes)));
        PyList::new(py, views.collect::<PyResult<Vec<Bound<'py, View>>>>()?)
    }

    /// The files of one extension, all of one length, as an array of `uint8` with a row for each sample: one copy, made without the
    /// interpreter's lock.
    fn stacked(&self, py: Python<'_>, extension: &str) -> PyResult<Array> {
        let files = self.files(py, extension)?;
        let length = files.first().map_or(0, Bytes::len);
        if let Some(at) = files.iter().position(|file| file.len() != length) {
            let key = text(py, self.batch.samples[at].key().or_raise(py)?)?;
            return Err(PyValueError::new_err(format!(
                "sample {key} has {} bytes in .{extension}, and the first of the batch {length}; `joined` takes any lengths",
                files[at].len()
            )));
        }
        let all = py.detach(|| files.concat());
        Ok(Array::new(all, &[files.len() as i64, length as i64]))
    }

    /// The files of one extension, one after the other, as an array of `uint8`, and an array of `int64` that says where each begins, and last where
    /// the last one ends: one copy, made without the interpreter's lock.
    fn joined(&self, py: Python<'_>, extension: &str) -> PyResult<(Array, Array)> {
        let files = self.files(py, extension)?;
        let mut offsets = vec![0_i64];
        for file in &files {
            offsets.push(offsets[offsets.len() - 1] + file.len() as i64);
        }
        let all = py.detach(|| files.concat());
        let (bytes, starts) = (all.len() as i64, offsets.len() as i64);
        Ok((Array::new(all, &[bytes]), Array::new(offsets, &[starts])))
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
