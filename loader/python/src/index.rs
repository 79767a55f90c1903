//! `index_tars`: what `granary index` does, for programs.

use std::path::PathBuf;

use granary_core::{Error, Kind, Result, SystemClock};
use granary_packer::adopt::{self, Options, Report};
use granary_packer::counts::Counts;
use granary_packer::key::Grouping;
use granary_packer::place::{self, Place};
use pyo3::prelude::*;

use crate::error::OrRaise;

pub fn grouping(name: &str) -> Result<Grouping> {
    match name {
        "stem" => Ok(Grouping::Stem),
        "directory" => Ok(Grouping::Directory),
        other => Err(Error::new(
            Kind::Invalid,
            format!("{other:?} makes no samples; group by \"stem\" or \"directory\""),
        )),
    }
}

/// Serves requests while the caller waits.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the threads that read and write a data set", e))
}

/// So many threads, or one a processor.
pub fn threads_or_all(threads: Option<usize>) -> usize {
    threads.or(std::thread::available_parallelism().ok().map(|n| n.get())).unwrap_or(1)
}

fn index(url: &str, tars: Option<Vec<String>>, options: &Options) -> Result<Report> {
    let runtime = runtime()?;
    let place = Place::open(url, &place::Options::from_env(), std::sync::Arc::new(SystemClock))?;
    adopt::adopt(&place, tars, options, runtime.handle(), &Counts::default())
}

/// Makes a data set of tars that are there, without rewriting them.
///
/// Raises: as the core says; the message names tar and offset.
#[pyfunction]
#[pyo3(signature = (url, tars = None, *, group = "stem", skip_errors = false, threads = None))]
pub fn index_tars<'py>(
    py: Python<'py>,
    url: PathBuf,
    tars: Option<Vec<String>>,
    group: &str,
    skip_errors: bool,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = Options {
        grouping: grouping(group).or_raise(py)?,
        skip_errors,
        anew: false,
        threads: threads_or_all(threads),
        work_dir: std::env::temp_dir(),
    };
    let report = py.detach(|| index(&url.to_string_lossy(), tars, &options)).or_raise(py)?;
    let json = serde_json::to_string(&report)
        .map_err(|e| Error::new(Kind::Bug, "a report that is no JSON").with_source(e))
        .or_raise(py)?;
    py.import("json")?.call_method1("loads", (json,))
}
