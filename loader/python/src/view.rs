//! `View`: bytes that Rust owns, lent to Python without a copy.
//!
//! A `bytes` object owns its bytes, so making one copies them. A view has the buffer protocol instead: `memoryview`,
//! `numpy.frombuffer`, `io.BytesIO`, `hashlib`, `int` take it as it is, and `torch.from_dlpack` and its like by DLPack. It is read only, compares and hashes as
//! `bytes` do, and keeps what it lends (a mapped shard, a fetched range) alive as long as it or a buffer of it lives.

use std::ffi::{c_int, c_void};

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice, PyString};

use crate::dlpack::{self, DEVICE, Request};
use crate::numbers::Numbers;

/// One file's bytes.
// Without Python objects in it, so the collector of cycles has nothing to do with it.
#[pyclass(frozen, sequence, module = "granary")]
pub struct View {
    bytes: Bytes,
}

impl View {
    pub fn new(bytes: Bytes) -> View {
        View { bytes }
    }
}

#[pymethods]
impl View {
    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    /// A number for an index, a view for a slice without a step, `bytes` for a slice with one.
    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(self.bytes.len() as isize)?;
            if range.step == 1 {
                let (start, stop) = (range.start as usize, range.stop.max(range.start) as usize);
                return Ok(Bound::new(py, View::new(self.bytes.slice(start..stop)))?.into_any());
            }
            let at = |i: usize| self.bytes[(range.start + range.step * i as isize) as usize];
            let picked: Vec<u8> = (0..range.slicelength).map(at).collect();
            return Ok(PyBytes::new(py, &picked).into_any());
        }
        let Ok(given) = index.extract::<isize>() else {
            return Err(PyTypeError::new_err("a view's index is a number or a slice"));
        };
        let at = if given < 0 { given + self.bytes.len() as isize } else { given };
        match usize::try_from(at).ok().and_then(|at| self.bytes.get(at)) {
            Some(byte) => Ok(byte.into_pyobject(py)?.into_any()),
            None => Err(PyIndexError::new_err(format!("index {given} of {} bytes", self.bytes.len()))),
        }
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        if let Ok(view) = other.cast::<View>() {
            return view.get().bytes == self.bytes;
        }
        if let Ok(bytes) = other.cast::<PyBytes>() {
            return bytes.as_bytes() == &self.bytes[..];
        }
        match PyBuffer::<u8>::get(other) {
            Ok(buffer) => buffer.to_vec(other.py()).is_ok_and(|v| v == self.bytes[..]),
            Err(_) => false,
        }
    }

    /// As `bytes` of the same content, since they are equal.
    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyBytes::new(py, &self.bytes).hash()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.bytes)
    }

    /// A copy as `bytes`.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.__bytes__(py)
    }

    /// The text in it, as `bytes.decode` does.
    #[pyo3(signature = (encoding = "utf-8", errors = "strict"))]
    fn decode<'py>(&self, py: Python<'py>, encoding: &str, errors: &str) -> PyResult<Bound<'py, PyAny>> {
        if encoding == "utf-8"
            && let Ok(text) = std::str::from_utf8(&self.bytes)
        {
            return Ok(PyString::new(py, text).into_any());
        }
        self.__bytes__(py).call_method1("decode", (encoding, errors))
    }

    /// Pickled as the `bytes` it shows: what it lends belongs to this process.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>, (Bound<'py, PyBytes>,)) {
        (py.get_type::<PyBytes>().into_any(), (self.__bytes__(py),))
    }

    /// For `torch.from_dlpack` and its like: `uint8`, read only.
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
        let numbers = Numbers::lent(self.bytes.clone());
        dlpack::capsule(py, &numbers, &[self.bytes.len() as i64], &asked, || {
            Numbers::given(self.bytes.to_vec())
        })
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        DEVICE
    }

    fn __repr__(&self) -> String {
        format!("<granary.View of {} bytes>", self.bytes.len())
    }

    /// # Safety
    /// Called by Python only, with a buffer of its own.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, buffer: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if buffer.is_null() {
            return Err(PyBufferError::new_err("no buffer to fill"));
        }
        let bytes = &slf.get().bytes;
        let (start, length) = (bytes.as_ptr() as *mut c_void, bytes.len() as ffi::Py_ssize_t);
        // SAFETY: `buffer` is Python's to fill. It keeps a reference to this view, which is frozen and so keeps its
        // bytes where they are; they are lent read only (the 1), and a request to write them is refused.
        match unsafe { ffi::PyBuffer_FillInfo(buffer, slf.as_ptr(), start, length, 1, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}
