//! The extension module `granary._granary`. The package around it (`loader/python/python/granary`) is what users see; what is
//! here binds `granary-loader` and holds no logic of its own.
//!
//! * Every call that may wait or compute gives the interpreter's lock back ([`pyo3::Python::detach`]).
//! * Bytes are lent ([`view`]), never copied, and so are numbers ([`array`]); a sample's dictionary is made when it is asked for.
//! * Against Python's stable interface from 3.11 on (the first with the buffer protocol), so one wheel serves all.

mod array;
mod batch;
mod dlpack;
mod error;
mod index;
mod loader;
mod numbers;
mod pack;
mod sample;
mod source;
mod view;

use pyo3::prelude::*;

#[pymodule]
mod _granary {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::array::Array;
    #[pymodule_export]
    use crate::array::array_of;
    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::index::index_tars;
    #[pymodule_export]
    use crate::loader::Core;
    #[pymodule_export]
    use crate::pack::pack_files;
    #[pymodule_export]
    use crate::source::Source;
    #[pymodule_export]
    use crate::view::View;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
