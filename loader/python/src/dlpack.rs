//! DLPack: how array libraries lend each other memory (<https://dmlc.github.io/dlpack/latest/>, versions 0 and 1.0).
//!
//! A capsule holds a struct with pointer, type and shape and a function that gives it back. Version 1 can say that memory is read only; who asks
//! for version 0 is given a copy of such memory, since it would write to a mapped shard and be killed for it.

use std::ffi::{CStr, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::numbers::Numbers;

/// Of DLPack: main memory.
pub const DEVICE: (i32, i32) = (1, 0);
const VERSION: (u32, u32) = (1, 0);
const READ_ONLY: u64 = 1;
const IS_COPIED: u64 = 2;

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    dimensions: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// Version 0: `DLManagedTensor`.
#[repr(C)]
struct Plain {
    tensor: Tensor,
    owner: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Plain)>,
}

/// Version 1: `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: (u32, u32),
    owner: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
}

/// What a capsule keeps alive: the numbers, shape and strides.
struct Owner {
    _numbers: Numbers,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// In numbers, the last dimension's is 1.
pub fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    strides
}

/// The owner, and the tensor that points into it.
fn tensor(numbers: Numbers, shape: &[i64]) -> (*mut c_void, Tensor) {
    let (kind, data) = (numbers.kind, numbers.start());
    let empty = numbers.length == 0;
    let owner =
        Box::into_raw(Box::new(Owner { _numbers: numbers, shape: shape.to_vec(), strides: strides(shape) }));
    // SAFETY: it was made here, and nobody else has it yet.
    let of = unsafe { &mut *owner };
    let tensor = Tensor {
        data: if empty { std::ptr::null_mut() } else { data },
        device_type: DEVICE.0,
        device_id: DEVICE.1,
        dimensions: shape.len() as i32,
        code: kind.code,
        bits: kind.bits,
        lanes: 1,
        shape: of.shape.as_mut_ptr(),
        strides: of.strides.as_mut_ptr(),
        byte_offset: 0,
    };
    (owner.cast(), tensor)
}

/// # Safety
/// `managed` is one that `capsule` made, and is not used again.
unsafe extern "C" fn delete_plain(managed: *mut Plain) {
    // SAFETY: both were boxes, and their last user gives them back.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.owner.cast::<Owner>()));
    }
}

/// # Safety
/// As [`delete_plain`].
unsafe extern "C" fn delete_versioned(managed: *mut Versioned) {
    // SAFETY: as above.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.owner.cast::<Owner>()));
    }
}

const PLAIN: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// A capsule that nobody took: who takes one renames it, and gives its content back himself.
///
/// # Safety
/// Called by Python, for a capsule that `capsule` made.
unsafe extern "C" fn drop_capsule(capsule: *mut ffi::PyObject) {
    // SAFETY: a capsule by one of these names holds what the name says.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, PLAIN.as_ptr()) == 1 {
            delete_plain(ffi::PyCapsule_GetPointer(capsule, PLAIN.as_ptr()).cast());
        } else if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast());
        }
    }
}

/// What `__dlpack__` is asked for.
pub struct Request {
    pub max_version: Option<(u32, u32)>,
    pub device: Option<(i32, i32)>,
    pub copy: Option<bool>,
}

/// `copied`: makes numbers of its own that may be written, of the same kind.
///
/// Raises: `BufferError` for another device, and when what would have to be copied must not be.
pub fn capsule<'py>(
    py: Python<'py>,
    numbers: &Numbers,
    shape: &[i64],
    asked: &Request,
    copied: impl FnOnce() -> Numbers + Send,
) -> PyResult<Bound<'py, PyAny>> {
    if asked.device.is_some_and(|device| device != DEVICE) {
        return Err(PyBufferError::new_err(
            "it is in main memory; ask for that, and copy it to another device",
        ));
    }
    let versioned = asked.max_version.is_some_and(|(major, _)| major >= VERSION.0);
    let unsafe_to_lend = numbers.is_read_only && !versioned;
    if unsafe_to_lend && asked.copy == Some(false) {
        return Err(PyBufferError::new_err(
            "it is read only, which DLPack before version 1 cannot say: give max_version=(1, 0), or let it be copied",
        ));
    }
    let copies = asked.copy == Some(true) || unsafe_to_lend;
    let numbers = if copies { py.detach(copied) } else { numbers.clone() };
    let read_only = numbers.is_read_only;
    let (owner, tensor) = tensor(numbers, shape);
    let (held, name): (*mut c_void, &CStr) = if versioned {
        let flags = if read_only { READ_ONLY } else { 0 } | if copies { IS_COPIED } else { 0 };
        let deleter: unsafe extern "C" fn(*mut Versioned) = delete_versioned;
        let managed = Versioned { version: VERSION, owner, deleter: Some(deleter), flags, tensor };
        (Box::into_raw(Box::new(managed)).cast(), VERSIONED)
    } else {
        let deleter: unsafe extern "C" fn(*mut Plain) = delete_plain;
        (Box::into_raw(Box::new(Plain { tensor, owner, deleter: Some(deleter) })).cast(), PLAIN)
    };
    // SAFETY: the pointer is not null, the name is a constant, and the destructor knows both kinds.
    let made = unsafe { ffi::PyCapsule_New(held, name.as_ptr(), Some(drop_capsule)) };
    // SAFETY: a new reference, or null with an error set; then what it would have held is lost, which is what a machine without memory has last.
    unsafe { Bound::from_owned_ptr_or_err(py, made) }
}
