//! `Batch`: what one step is given. Its samples become dictionaries one by one, when they are looked at.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use pyo3::exceptions::{PyIndexError, PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice, PyString};

use crate::array::Array;
use crate::error::OrRaise;
use crate::sample::{Given, Lent};

/// A sequence of samples.
#[pyclass(frozen, sequence, module = "granary")]
pub struct Batch {
    /// Its samples are in `samples`.
    batch: granary_loader::Batch,
    samples: Vec<Lent>,
}

/// A batch's files of one extension.
enum Column<'a> {
    Bytes(Vec<Bytes>),
    Arrays(Vec<&'a Array>),
}

impl Batch {
    pub fn new(mut batch: granary_loader::Batch) -> Batch {
        let samples = std::mem::take(&mut batch.samples).into_iter().map(Lent::new).collect();
        Batch { batch, samples }
    }

    /// Each sample's file of this extension. Raises: `KeyError` when one has none.
    fn files(&self, py: Python<'_>, extension: &str) -> PyResult<Vec<Given<'_>>> {
        let file = |sample: &'_ Lent| match sample.sample().find(extension.as_bytes()).or_raise(py)? {
            Some(at) => Ok(at),
            None => Err(PyKeyError::new_err(format!("sample {} has no file .{extension}", sample.key(py)?))),
        };
        self.samples.iter().map(|sample| sample.file(py, file(sample)?)).collect()
    }

    /// The same, all of one sort. Raises: `KeyError`.
    fn of_one_sort(&self, py: Python<'_>, extension: &str) -> PyResult<Column<'_>> {
        let (mut bytes, mut arrays) = (Vec::new(), Vec::new());
        for file in self.files(py, extension)? {
            match file {
                Given::Bytes(one) => bytes.push(one),
                Given::Array(one) => arrays.push(one),
            }
        }
        match (bytes.is_empty(), arrays.is_empty()) {
            (_, true) => Ok(Column::Bytes(bytes)),
            (true, false) => Ok(Column::Arrays(arrays)),
            // Data sets with and without it are mixed.
            (false, false) => Err(PyValueError::new_err(format!(
                "some samples have .{extension} decoded and some as bytes; give decode to the loader, for all data sets, or take `column`"
            ))),
        }
    }

    /// Raises: `ValueError` that says which sample is another than the first, and why.
    fn unlike(&self, py: Python<'_>, at: usize, extension: &str, why: &str, mend: &str) -> PyErr {
        match self.samples[at].key(py) {
            Ok(key) => PyValueError::new_err(format!("sample {key}: .{extension} {why}; {mend}")),
            Err(e) => e,
        }
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
        self.samples.len()
    }

    /// A sample, or a list of them for a slice.
    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let samples = &self.samples;
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(samples.len() as isize)?;
            let at = |i: usize| (range.start + range.step * i as isize) as usize;
            let picked = (0..range.slicelength).map(|i| samples[at(i)].dictionary(py));
            return Ok(PyList::new(py, picked.collect::<PyResult<Vec<Bound<'py, PyDict>>>>()?)?.into_any());
        }
        let Ok(given) = index.extract::<isize>() else {
            return Err(PyTypeError::new_err("a batch's index is a number or a slice"));
        };
        let at = if given < 0 { given + samples.len() as isize } else { given };
        match usize::try_from(at).ok().and_then(|at| samples.get(at)) {
            Some(sample) => Ok(sample.dictionary(py)?.into_any()),
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
        let keys = self.samples.iter().map(|sample| sample.key(py));
        PyList::new(py, keys.collect::<PyResult<Vec<Bound<'py, PyString>>>>()?)
    }

    /// The samples' numbers in their data set.
    fn numbers(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.sample().number()).collect()
    }

    /// Which of the loader's data sets each sample is of.
    fn sources(&self) -> Vec<u32> {
        self.samples.iter().map(|sample| sample.sample().source()).collect()
    }

    /// The files of one extension, without a dictionary for each sample.
    fn column<'py>(&self, py: Python<'py>, extension: &str) -> PyResult<Bound<'py, PyList>> {
        let files = self.files(py, extension)?;
        PyList::new(
            py,
            files.iter().map(|file| file.to_python(py)).collect::<PyResult<Vec<Bound<'py, PyAny>>>>()?,
        )
    }

    /// The files of one extension as one array with a row for each sample: of bytes that are all of one length, or of arrays that are all of one
    /// shape. One copy, made without the interpreter's lock.
    fn stacked(&self, py: Python<'_>, extension: &str) -> PyResult<Array> {
        match self.of_one_sort(py, extension)? {
            Column::Bytes(files) => {
                let length = files.first().map_or(0, Bytes::len);
                if let Some(at) = files.iter().position(|file| file.len() != length) {
                    let why = format!("has {} bytes, and the first of the batch {length}", files[at].len());
                    return Err(self.unlike(py, at, extension, &why, "`joined` takes any lengths"));
                }
                let all = py.detach(|| files.concat());
                Ok(Array::new(all, &[files.len() as i64, length as i64]))
            }
            Column::Arrays(arrays) => {
                let first = arrays[0];
                for (at, array) in arrays.iter().enumerate() {
                    let shape = |array: &Array| format!("{:?}", array.shape_of());
                    let why = match array.is_like(first) {
                        Ok(()) if array.shape_of() == first.shape_of() => continue,
                        Ok(()) => format!("is {}, and the first of the batch {}", shape(array), shape(first)),
                        Err(why) => why,
                    };
                    let mend = "decode to one mode, bring them to one shape in `column`, or see `joined`";
                    return Err(self.unlike(py, at, extension, &why, mend));
                }
                let mut shape = vec![arrays.len() as i64];
                shape.extend_from_slice(first.shape_of());
                Ok(py.detach(|| Array::joined(&arrays, &shape)))
            }
        }
    }

    /// The files of one extension one after the other, and an array of `int64` that says where each begins, and last where the last one ends: of
    /// bytes, or of arrays whose shapes differ in the first dimension only, such as sound. One copy, made without the interpreter's lock.
    fn joined(&self, py: Python<'_>, extension: &str) -> PyResult<(Array, Array)> {
        let mut offsets = vec![0_i64];
        let mut add = |length: i64| offsets.push(offsets[offsets.len() - 1] + length);
        let joined = match self.of_one_sort(py, extension)? {
            Column::Bytes(files) => {
                files.iter().for_each(|file| add(file.len() as i64));
                let all = py.detach(|| files.concat());
                let length = all.len() as i64;
                Array::new(all, &[length])
            }
            Column::Arrays(arrays) => {
                let first = arrays[0];
                for (at, array) in arrays.iter().enumerate() {
                    add(array.shape_of()[0]);
                    let (own, of_first) = (&array.shape_of()[1..], &first.shape_of()[1..]);
                    let why = match array.is_like(first) {
                        Ok(()) if own == of_first => continue,
                        Ok(()) => format!("has rows of {own:?}, and the first of the batch of {of_first:?}"),
                        Err(why) => why,
                    };
                    return Err(self.unlike(py, at, extension, &why, "`column` takes any shapes"));
                }
                let mut shape = first.shape_of().to_vec();
                shape[0] = offsets[offsets.len() - 1];
                py.detach(|| Array::joined(&arrays, &shape))
            }
        };
        let starts = offsets.len() as i64;
        Ok((joined, Array::new(offsets, &[starts])))
    }

    fn __repr__(&self) -> String {
        let granary_loader::Batch { epoch, number, .. } = &self.batch;
        format!("<granary.Batch {number} of epoch {epoch}, {} samples>", self.samples.len())
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
        let samples = &self.batch.get().samples;
        match samples.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            Some(sample) => sample.dictionary(py).map(Some),
            None => Ok(None),
        }
    }

    fn __length_hint__(&self) -> usize {
        self.batch.get().samples.len().saturating_sub(self.next.load(Ordering::Relaxed))
    }
}
