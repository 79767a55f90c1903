//! `Array`: numbers with a shape, made in Rust and lent to array libraries without a copy.
//!
//! `numpy.asarray` and `memoryview` have it by the buffer protocol, `torch.from_dlpack`, `jax.dlpack` and `numpy.from_dlpack` by DLPack. Nobody
//! else has its memory, so it may be written: a file that is looked at twice is one array in both places, and what stands in for another sample has its
//! own.

use std::ffi::{c_int, c_void};

use granary_loader::decode;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::dlpack::{self, DEVICE, Request};
use crate::numbers::{Number, Numbers};

/// Row after row. Clones are the same array.
#[derive(Clone)]
#[pyclass(frozen, module = "granary")]
pub struct Array {
    numbers: Numbers,
    shape: Box<[i64]>,
    /// In bytes.
    strides: Box<[i64]>,
    sample_rate: Option<u32>,
    /// Copies of numbers of this kind, one after the other.
    join: fn(&[&Numbers]) -> Numbers,
}

fn join<T: Number>(parts: &[&Numbers]) -> Numbers {
    let mut all = Vec::<T>::with_capacity(parts.iter().map(|part| part.length).sum());
    for part in parts {
        // SAFETY: there are so many, of this type, as `Array::new` had them. Python may write to them meanwhile, from another thread: then a copy
        // has some of it, as with any array; a number is plain bits, and every pattern of them is one.
        all.extend_from_slice(unsafe { std::slice::from_raw_parts(part.start().cast::<T>(), part.length) });
    }
    Numbers::given(all)
}

impl Array {
    /// The product of `shape` is how many there are.
    pub fn new<T: Number>(numbers: Vec<T>, shape: &[i64]) -> Array {
        debug_assert_eq!(numbers.len() as i64, shape.iter().product::<i64>());
        let numbers = Numbers::given(numbers);
        let bytes = i64::from(numbers.kind.bits / 8);
        let strides = dlpack::strides(shape).into_iter().map(|stride| stride * bytes).collect();
        Array { numbers, shape: shape.into(), strides, sample_rate: None, join: join::<T> }
    }

    pub fn of(array: decode::Array) -> Array {
        let shape: Vec<i64> = array.shape.iter().map(|&length| length as i64).collect();
        let made = match array.numbers {
            decode::Numbers::U8(all) => Array::new(all, &shape),
            decode::Numbers::U16(all) => Array::new(all, &shape),
            decode::Numbers::I16(all) => Array::new(all, &shape),
            decode::Numbers::F32(all) => Array::new(all, &shape),
        };
        Array { sample_rate: array.sample_rate, ..made }
    }

    pub fn shape_of(&self) -> &[i64] {
        &self.shape
    }

    /// Whether both have the same kind of numbers and the same rate; the reason if not.
    pub fn is_like(&self, first: &Array) -> Result<(), String> {
        if self.numbers.kind != first.numbers.kind {
            return Err(format!("is {}, and the first of the batch {}", self.dtype(), first.dtype()));
        }
        if self.sample_rate != first.sample_rate {
            let rate =
                |array: &Array| array.sample_rate.map_or("no rate".to_owned(), |rate| format!("{rate} Hz"));
            return Err(format!("has {}, and the first of the batch {}", rate(self), rate(first)));
        }
        Ok(())
    }

    /// One after the other, of arrays that are alike, in this shape.
    pub fn joined(arrays: &[&Array], shape: &[i64]) -> Array {
        let parts: Vec<&Numbers> = arrays.iter().map(|array| &array.numbers).collect();
        let join = arrays.first().map_or(join::<u8> as fn(&[&Numbers]) -> Numbers, |first| first.join);
        let numbers = join(&parts);
        let bytes = i64::from(numbers.kind.bits / 8);
        let strides = dlpack::strides(shape).into_iter().map(|stride| stride * bytes).collect();
        let sample_rate = arrays.first().and_then(|first| first.sample_rate);
        Array { numbers, shape: shape.into(), strides, sample_rate, join }
    }
}

#[pymethods]
impl Array {
    /// Lengths of its dimensions.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.shape.iter())
    }

    /// What its numbers are, as numpy calls it.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.numbers.kind.name
    }

    /// Frames a second, of sound.
    #[getter]
    fn sample_rate(&self) -> Option<u32> {
        self.sample_rate
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.numbers.bytes()
    }

    fn __len__(&self) -> usize {
        self.shape.first().map_or(0, |&length| length as usize)
    }

    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = stream; // of other devices
        let asked = Request { max_version, device: dl_device, copy };
        dlpack::capsule(py, &self.numbers, &self.shape, &asked, || (self.join)(&[&self.numbers]))
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        DEVICE
    }

    /// Pickled with a copy of its numbers.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let array = slf.get();
        let copied = py.detach(|| (array.join)(&[&array.numbers]));
        // SAFETY: so many bytes are there, and nobody else has the copy.
        let bytes = unsafe { std::slice::from_raw_parts(copied.start().cast::<u8>(), copied.bytes()) };
        let parts = (PyBytes::new(py, bytes), array.dtype(), array.shape(py)?, array.sample_rate);
        Ok((py.import("granary._granary")?.getattr("array_of")?, parts.into_pyobject(py)?))
    }

    fn __repr__(&self) -> String {
        let rate = self.sample_rate.map_or(String::new(), |rate| format!(", {rate} Hz"));
        format!("<granary.Array of {} {:?}{rate}>", self.numbers.kind.name, self.shape)
    }

    /// # Safety
    /// Called by Python only, with a buffer of its own.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, buffer: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if buffer.is_null() {
            return Err(PyBufferError::new_err("no buffer to fill"));
        }
        let Array { numbers, shape, strides, .. } = slf.get();
        let is = |wanted: c_int| flags & wanted == wanted;
        // SAFETY: `buffer` is Python's to fill. It keeps a reference to this array, which is frozen and so keeps numbers, shape and strides where
        // they are; who asked for no shape is given bytes one after the other, which they are.
        unsafe {
            (*buffer).obj = slf.clone().into_any().into_ptr();
            (*buffer).buf = numbers.start().cast::<c_void>();
            (*buffer).len = numbers.bytes() as ffi::Py_ssize_t;
            (*buffer).readonly = 0;
            (*buffer).itemsize = ffi::Py_ssize_t::from(numbers.kind.bits / 8);
            (*buffer).format = if is(ffi::PyBUF_FORMAT) {
                numbers.kind.format.as_ptr().cast_mut()
            } else {
                std::ptr::null_mut()
            };
            (*buffer).ndim = shape.len() as c_int;
            let no = std::ptr::null_mut();
            (*buffer).shape = if is(ffi::PyBUF_ND) { shape.as_ptr().cast_mut().cast() } else { no };
            (*buffer).strides = if is(ffi::PyBUF_STRIDES) { strides.as_ptr().cast_mut().cast() } else { no };
            (*buffer).suboffsets = no;
            (*buffer).internal = std::ptr::null_mut();
        }
        Ok(())
    }
}

/// What was pickled of an array, as one again.
///
/// Raises: `ValueError` when the parts do not fit together.
#[pyfunction]
pub fn array_of(bytes: &[u8], dtype: &str, shape: Vec<i64>, sample_rate: Option<u32>) -> PyResult<Array> {
    fn numbers<T: Number, const N: usize>(
        bytes: &[u8],
        shape: &[i64],
        number: fn([u8; N]) -> T,
    ) -> Option<Array> {
        let length = shape.iter().try_fold(1_i64, |all, &length| all.checked_mul(length.max(-1)))?;
        let (numbers, rest) = bytes.as_chunks::<N>();
        let fits =
            rest.is_empty() && length == numbers.len() as i64 && shape.iter().all(|&length| length >= 0);
        fits.then(|| Array::new(numbers.iter().map(|&bytes| number(bytes)).collect(), shape))
    }
    let made = match dtype {
        "uint8" => numbers(bytes, &shape, |[byte]| byte),
        "uint16" => numbers(bytes, &shape, u16::from_ne_bytes),
        "int16" => numbers(bytes, &shape, i16::from_ne_bytes),
        "int64" => numbers(bytes, &shape, i64::from_ne_bytes),
        "float32" => numbers(bytes, &shape, f32::from_ne_bytes),
        _ => None,
    };
    let made = made.ok_or_else(|| {
        PyValueError::new_err(format!(
            "{} bytes are no array of {dtype} with the shape {shape:?}",
            bytes.len()
        ))
    })?;
    Ok(Array { sample_rate, ..made })
}
