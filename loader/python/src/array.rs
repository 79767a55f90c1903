//! `Array`: numbers with a shape, made in Rust and lent to array libraries without a copy.
//!
//! `numpy.asarray` and `memoryview` have it by the buffer protocol, `torch.from_dlpack`, `jax.dlpack` and `numpy.from_dlpack` by DLPack. Nobody
//! else has its memory, so it may be written.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::dlpack::{self, DEVICE, Request};
use crate::numbers::{Number, Numbers};

/// Row after row.
#[pyclass(frozen, module = "granary")]
pub struct Array {
    numbers: Numbers,
    shape: Box<[i64]>,
    /// In bytes.
    strides: Box<[i64]>,
    /// Makes the same again.
    copy: fn(&Numbers) -> Numbers,
}

fn copy<T: Number>(numbers: &Numbers) -> Numbers {
    // SAFETY: there are so many, of this type, as `Array::new` had them. Python may write to them meanwhile, from another thread: then a copy
    // has some of it, as with any array; a number is plain bits, and every pattern of them is one.
    let all = unsafe { std::slice::from_raw_parts(numbers.start().cast::<T>(), numbers.length) };
    Numbers::given(all.to_vec())
}

impl Array {
    /// The product of `shape` is how many there are.
    pub fn new<T: Number>(numbers: Vec<T>, shape: &[i64]) -> Array {
        debug_assert_eq!(numbers.len() as i64, shape.iter().product::<i64>());
        let numbers = Numbers::given(numbers);
        let bytes = i64::from(numbers.kind.bits / 8);
        let strides = dlpack::strides(shape).into_iter().map(|stride| stride * bytes).collect();
        Array { numbers, shape: shape.into(), strides, copy: copy::<T> }
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
        dlpack::capsule(py, &self.numbers, &self.shape, &asked, || (self.copy)(&self.numbers))
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        DEVICE
    }

    fn __repr__(&self) -> String {
        format!("<granary.Array of {} {:?}>", self.numbers.kind.name, self.shape)
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
