//! Numbers in memory that Rust owns, lent to Python: what `array` and `view` show by the buffer protocol and by DLPack.
//!
//! There is no Python object in it, so it may be given back by any thread and without the interpreter's lock, also in a child made by `fork`,
//! which has a copy of the memory.

use std::ffi::{CStr, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;

/// What a number is, as DLPack names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// 0: signed, 1: unsigned, 2: floating.
    pub code: u8,
    pub bits: u8,
    /// As Python's `struct` has it.
    pub format: &'static CStr,
    /// As numpy calls it.
    pub name: &'static str,
}

/// Types that are lent.
pub trait Number: Copy + Send + Sync + 'static {
    const KIND: Kind;
}

impl Number for u8 {
    const KIND: Kind = Kind { code: 1, bits: 8, format: c"B", name: "uint8" };
}

impl Number for u16 {
    const KIND: Kind = Kind { code: 1, bits: 16, format: c"H", name: "uint16" };
}

impl Number for i16 {
    const KIND: Kind = Kind { code: 0, bits: 16, format: c"h", name: "int16" };
}

impl Number for i64 {
    const KIND: Kind = Kind { code: 0, bits: 64, format: c"q", name: "int64" };
}

impl Number for f32 {
    const KIND: Kind = Kind { code: 2, bits: 32, format: c"f", name: "float32" };
}

/// A vector that is not looked at by Rust any more, since Python may write to it.
struct Given<T> {
    start: NonNull<T>,
    length: usize,
    capacity: usize,
}

impl<T> Drop for Given<T> {
    fn drop(&mut self) {
        // SAFETY: these are the parts of a vector that was given away, and nobody else has them.
        drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.length, self.capacity) });
    }
}

/// Keeps memory until the last who was lent it gives it back.
trait Keeper: Send + Sync {}
impl Keeper for Bytes {}
impl<T: Number> Keeper for Given<T> {}

// SAFETY: plain numbers, which belong to no thread.
unsafe impl<T: Number> Send for Given<T> {}
// SAFETY: Rust does not look at them; what Python's threads do to them is theirs, as with any array.
unsafe impl<T: Number> Sync for Given<T> {}

/// Numbers one after the other. Clones share them.
#[derive(Clone)]
pub struct Numbers {
    start: *mut c_void,
    pub length: usize,
    pub kind: Kind,
    /// They are somebody else's too: a shard's.
    pub is_read_only: bool,
    _keeper: Arc<dyn Keeper>,
}

// SAFETY: the pointer is to what the keeper keeps, which is `Send` and `Sync`.
unsafe impl Send for Numbers {}
// SAFETY: as above; Rust never reads or writes through the pointer.
unsafe impl Sync for Numbers {}

impl Numbers {
    /// Not copied; read only.
    pub fn lent(bytes: Bytes) -> Numbers {
        let (start, length) = (bytes.as_ptr() as *mut c_void, bytes.len());
        Numbers { start, length, kind: u8::KIND, is_read_only: true, _keeper: Arc::new(bytes) }
    }

    /// Not copied; whoever has them may write.
    pub fn given<T: Number>(numbers: Vec<T>) -> Numbers {
        let mut numbers = ManuallyDrop::new(numbers);
        let given = Given {
            start: NonNull::new(numbers.as_mut_ptr()).unwrap_or(NonNull::dangling()),
            length: numbers.len(),
            capacity: numbers.capacity(),
        };
        Numbers {
            start: given.start.as_ptr().cast(),
            length: given.length,
            kind: T::KIND,
            is_read_only: false,
            _keeper: Arc::new(given),
        }
    }

    /// Where the first is. To be read, and if they are not read only written, as long as `self` or a clone of it lives.
    pub fn start(&self) -> *mut c_void {
        self.start
    }

    pub fn bytes(&self) -> usize {
        self.length * usize::from(self.kind.bits / 8)
    }
}
