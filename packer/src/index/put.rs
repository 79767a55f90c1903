//! An index put beside its tar. One of millions of files has hundreds of MiB, which need not be in memory for that.

use std::io::BufWriter;
use std::path::Path;

use granary_core::{Error, Result};
use tokio::runtime::Handle;

use super::Sealed;
use super::spool::Spool;
use crate::place::Place;

/// Puts it under this name, whole or not at all. For a bucket it is written into `work_dir` first, if it is large.
///
/// Errors: what disk and store say.
pub fn put(index: &Sealed, place: &Place, name: &str, work_dir: &Path, runtime: &Handle) -> Result<()> {
    if place.folder().is_some() {
        let mut file = BufWriter::with_capacity(1 << 20, place.new_file(name)?);
        index.write_to(&mut file)?;
        let cannot = |e| Error::io(format!("cannot write {place}/{name}"), e);
        return file.into_inner().map_err(|e| cannot(e.into_error()))?.keep();
    }
    let mut spool = Spool::new(work_dir);
    index.write_to(&mut spool)?;
    runtime.block_on(place.put(name, spool.finish()?.into_bytes()))
}
